/** Keeps both videos in step, whatever the page does to them: Gradio replaces the nodes with each result. */

const PANES = ['#vid-orig', '#vid-edit'];
const NAMES = ['Original', 'Unlearned'];
const DEFAULT_FRAME = 1 / 8;
const TRIES = 3; // to reach a frame, should a browser round a time more than expected

const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
// goal: the frame all videos are on their way to, null once they are there.
const state = { view: 'side', speed: 1, divider: 50, playing: !calm, scrubbing: false, frame: 0, goal: null };
const clips = [null, null];
let roots = [], drawn = '', touched = -Infinity;

// --- what is on the page ------------------------------------------------------------------------

const part = name => document.querySelector(`.rs-player [data-rs=${name}]`);
const parts = name => [...document.querySelectorAll(`.rs-player [data-rs=${name}]`)];
const bar = () => document.querySelector('.rs-transport');
const frameLength = () =>
  Number(document.querySelector('#vid-orig-verdict [data-frame]')?.dataset.frame) || DEFAULT_FRAME;
const isKnown = clip => clip && clip.video.readyState >= 1 && Number.isFinite(clip.video.duration) &&
  clip.video.duration > 0;
const live = () => clips.filter(isKnown);
// Not readyState: it may fall for a moment while seeking, and the stage must not blink.
const isPair = () => clips.every(clip => isKnown(clip) && clip.hasFrame);
const view = () => (isPair() && bar() ? state.view : 'side');

/** The shorter video leads, so that the other never has to stand still. */
function leader() {
  return live().reduce((a, b) => (a && a.video.duration <= b.video.duration ? a : b), null);
}

const duration = () => leader()?.video.duration || 0;
const frameCount = () => Math.max(1, Math.round(duration() / frameLength()));

function frameAt(time) {
  // A time stamp is rounded to microseconds: 1/24 s may be told as 0.041666.
  const frame = Math.floor(time / frameLength() + 0.01);
  return Math.min(Math.max(frame, 0), frameCount() - 1);
}

const frameOf = clip => clip.shown ?? frameAt(clip.video.currentTime);

// --- videos come and go -------------------------------------------------------------------------

function bind() {
  const found = [...document.querySelectorAll('.rs-player')];
  const isNew = found.length !== roots.length || found.some((root, i) => root !== roots[i]);
  const hasNewVideo = PANES.map(bindPane).some(Boolean);
  if (!isNew && !hasNewVideo) return;
  roots = found;
  drawn = '';
  settle();
}

function bindPane(selector, i) {
  const video = document.querySelector(`${selector} video`);
  if ((clips[i]?.video ?? null) === video) return false;
  if (clips[i]) release(clips[i]);
  clips[i] = video && adopt(video, NAMES[i]);
  return true;
}

function release(clip) {
  clip.listeners.abort();
  clip.unwatch();
}

function adopt(video, name) {
  // told: what it was last told to do, to play (true) or to rest (false); null before.
  const clip = { video, told: null, shown: null, hasFrame: video.readyState >= 2, seekedByUs: false, tries: 0,
    listeners: new AbortController(), unwatch: () => {} };
  const on = (event, does) => video.addEventListener(event, does, { signal: clip.listeners.signal });
  Object.assign(video, { muted: true, playsInline: true, loop: true });
  video.removeAttribute('autoplay'); // the browser would pause it when scrolled away, and both start here
  video.setAttribute('aria-label', name);
  // Ours alone: Gradio would look whether the video rests, which it also does for a moment while both are
  // brought in step, and a click to pause would start it.
  video.addEventListener('click', onVideoClick, { signal: clip.listeners.signal, capture: true });
  on('loadedmetadata', () => joined(clip));
  on('loadeddata', () => { clip.hasFrame = true; settle(); });
  on('emptied', () => Object.assign(clip, { shown: null, hasFrame: false }));
  on('seeking', () => onSeeking(clip));
  on('seeked', () => { clip.seekedByUs = false; settle(); });
  on('play', () => onPlay(clip));
  on('pause', () => onPause(clip));
  watch(clip);
  if (isKnown(clip)) setTimeout(() => joined(clip)); // after its twin is bound as well
  return clip;
}

/** A new video goes to where the other one is; a first one starts again, or stays put when paused. */
function joined(clip) {
  if (!clips.includes(clip)) return;
  setRate(clip, state.speed);
  const alone = live().every(other => other === clip);
  const start = state.playing ? 0 : state.frame;
  go(state.goal ?? (alone ? start : state.frame));
}

const wasTouched = () => performance.now() - touched < 1000;

/** Gradio starts or pauses a video at a click, and tells of it later: until then it is left as it is. */
const isChanged = ({ video, told }) => wasTouched() && told !== null && told === video.paused;

function onVideoClick(event) {
  event.stopImmediatePropagation();
  toggle();
}

/** Gradio plays new videos by itself: only a play from the user's hand counts. */
function onPlay(clip) {
  if (clip.video.paused || state.playing) return settle();
  if (state.goal === null && wasTouched()) {
    clip.told = true;
    return play();
  }
  settle();
}

function onPause(clip) {
  const leaving = !clip.video.isConnected || document.hidden || !clip.video.paused;
  if (!leaving && state.playing && !state.scrubbing && state.goal === null) pause();
}

function onSeeking(clip) {
  if (clip.seekedByUs || state.goal !== null || !wasTouched()) return;
  go(frameAt(clip.video.currentTime));
}

// --- in step ------------------------------------------------------------------------------------

/** The middle of the frame: rounding can then never land on its neighbour. */
function timeOf(frame, video) {
  const half = frameLength() / 2;
  return Math.max(0, Math.min(frame * frameLength() + half, video.duration - half / 2));
}

function go(frame) {
  const count = frameCount();
  state.goal = state.frame = ((frame % count) + count) % count;
  live().forEach(clip => { clip.tries = 0; });
  settle();
}

function hasArrived(clip) {
  const { video, tries } = clip;
  const away = Math.abs(video.currentTime - timeOf(state.goal, video));
  return !video.seeking && (away < frameLength() / 8 || tries > TRIES);
}

function send(clip) {
  const { video } = clip;
  stop(clip);
  if (video.seeking || hasArrived(clip)) return;
  clip.seekedByUs = true;
  clip.tries += 1;
  video.currentTime = timeOf(state.goal, video);
}

/** Bring the videos closer to the state; called again by every event until they are there. */
function settle() {
  const all = live();
  if (all.length && state.goal !== null) {
    if (all.every(hasArrived)) state.goal = null;
    else all.forEach(send);
  }
  const does = state.playing && !state.scrubbing ? start : stop;
  if (state.goal === null) all.filter(clip => !isChanged(clip)).forEach(does);
  refresh();
}

function start(clip) {
  const { video } = clip;
  clip.told = true;
  if (video.paused) video.play().catch(refused);
}

function stop(clip) {
  clip.told = false;
  if (!clip.video.paused) clip.video.pause();
}

function refused(error) {
  if (error.name !== 'NotAllowedError') return; // a pause or a new video came first
  state.playing = false;
  settle();
}

function setRate({ video }, rate) {
  video.defaultPlaybackRate = state.speed;
  if (video.playbackRate !== rate) video.playbackRate = rate;
}

/** How far the second runs ahead of the first, in seconds, around the loop. */
function drift(first, second) {
  const length = duration();
  const ahead = (second.video.currentTime - first.video.currentTime) % length;
  return ahead - length * Math.round(ahead / length);
}

function correct() {
  const first = leader(), second = live().find(clip => clip !== first);
  if (!second || first.video.seeking || second.video.seeking) return;
  const ahead = drift(first, second), step = frameLength();
  const isPastLoop = second.video.currentTime > duration() + step; // of a longer video
  if (isPastLoop || Math.abs(ahead) > 0.9 * step) go(frameOf(first));
  else if (Math.abs(ahead) > step / 4) setRate(second, state.speed * (ahead > 0 ? 0.94 : 1.06));
  else if (Math.abs(ahead) < step / 16) setRate(second, state.speed);
}

function watch(clip) {
  const { video } = clip;
  if (video.requestVideoFrameCallback) {
    const id = video.requestVideoFrameCallback((_, { mediaTime }) => {
      watch(clip);
      onFrame(clip, mediaTime);
    });
    clip.unwatch = () => video.cancelVideoFrameCallback(id);
  } else {
    const id = requestAnimationFrame(() => { watch(clip); onFrame(clip, video.currentTime); });
    clip.unwatch = () => cancelAnimationFrame(id);
  }
}

function onFrame(clip, time) {
  const frame = frameAt(time);
  if (!isKnown(clip) || clip.shown === frame) return;
  clip.shown = frame;
  if (clip === leader() && state.playing && state.goal === null && !state.scrubbing) {
    state.frame = frame;
    correct();
  }
  refresh();
}
