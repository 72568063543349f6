/** The one frame in which both videos meet: pixels in, pixels out. Knows neither time nor controls. */
const stage = (() => {
  const MAX_SIDE = 960; // larger videos are drawn smaller, so that a difference takes a few ms a frame
  // Viridis in 17 steps (CC0): perceptually uniform, and readable with every kind of colour vision.
  const VIRIDIS = ('440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c ' +
    '1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725').split(' ');
  const scratch = [document.createElement('canvas'), document.createElement('canvas')];
  let palette = null;

  function sizeOf({ videoWidth, videoHeight }) {
    const scale = Math.min(1, MAX_SIDE / Math.max(videoWidth, videoHeight));
    return { width: Math.round(videoWidth * scale), height: Math.round(videoHeight * scale) };
  }

  function resize(canvas, { width, height }) {
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
  }

  function paint(canvas, video, size, options) {
    resize(canvas, size);
    const context = canvas.getContext('2d', options);
    context.imageSmoothingEnabled = false; // small videos are enlarged pixel by pixel
    context.drawImage(video, 0, 0, size.width, size.height);
    return context;
  }

  /** Draw each video on its canvas, in the size of the first. */
  function drawEach(videos, canvases) {
    const size = sizeOf(videos[0]);
    videos.forEach((video, i) => paint(canvases[i], video, size));
  }

  /** Draw where two videos differ and return the mean difference in luma, 0 to 255. */
  function drawDifference(videos, canvas) {
    const size = sizeOf(videos[0]);
    const [one, two] = videos.map((video, i) => {
      const context = paint(scratch[i], video, size, { willReadFrequently: true });
      return context.getImageData(0, 0, size.width, size.height);
    });
    const map = new ImageData(size.width, size.height);
    const mean = colourDifference(one.data, two.data, new Uint32Array(map.data.buffer));
    resize(canvas, size);
    canvas.getContext('2d').putImageData(map, 0, 0);
    return mean;
  }

  /** Colour every pixel by |difference| in luma (Rec. 709, in 1/256); return the mean difference. */
  function colourDifference(one, two, pixels) {
    const colours = viridis();
    let sum = 0;
    for (let pixel = 0, i = 0; pixel < pixels.length; pixel++, i += 4) {
      const luma = 54 * (one[i] - two[i]) + 183 * (one[i + 1] - two[i + 1]) + 19 * (one[i + 2] - two[i + 2]);
      const difference = Math.abs(luma) >> 8;
      pixels[pixel] = colours[difference];
      sum += difference;
    }
    return sum / pixels.length;
  }

  /** Return 256 colours, each as the four bytes of an ImageData pixel. */
  function viridis() {
    if (palette) return palette;
    palette = new Uint32Array(256);
    const bytes = new Uint8ClampedArray(palette.buffer);
    const anchors = VIRIDIS.map(hex => [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16)));
    for (let level = 0; level < 256; level++) {
      const at = level / 255 * (anchors.length - 1), low = Math.min(Math.floor(at), anchors.length - 2);
      const colour = anchors[low].map((value, i) => value + (anchors[low + 1][i] - value) * (at - low));
      bytes.set([...colour, 255], 4 * level);
    }
    return palette;
  }

  /** Fill the legend, once for each canvas the page makes. */
  function drawLegend(canvas) {
    if (canvas.width === 256) return;
    resize(canvas, { width: 256, height: 1 });
    const strip = new ImageData(256, 1);
    new Uint32Array(strip.data.buffer).set(viridis());
    canvas.getContext('2d').putImageData(strip, 0, 0);
  }

  return { drawEach, drawDifference, drawLegend };
})();
