/** What the user presses and sees: buttons, keys, the time, the views. Listens at the document, as Gradio may
 * replace the controls too. */

const TYPING = 'textarea, select, [contenteditable=""], [contenteditable=true], [role=textbox], ' +
  '[role=combobox], [role=grid], table';
const NOT_TYPED = ['button', 'checkbox', 'radio', 'range', 'submit', 'reset', 'file', 'color', 'image'];

// --- what the user does -------------------------------------------------------------------------

function play() {
  state.playing = true;
  settle();
}

function pause() {
  state.playing = false;
  go(state.frame);
}

const toggle = () => (state.playing ? pause() : play());

function stepBy(frames) {
  state.playing = false;
  go(state.frame + frames);
}

function scrub(time) {
  state.scrubbing = true;
  go(frameAt(time));
}

function endScrub() {
  if (!state.scrubbing) return;
  state.scrubbing = false;
  settle();
}

function setSpeed(speed) {
  state.speed = speed;
  live().forEach(clip => setRate(clip, speed));
  refresh();
}

function shiftSpeed(by) {
  const speeds = parts('speed').map(button => Number(button.value));
  const next = speeds[speeds.indexOf(state.speed) + by];
  if (next) setSpeed(next);
}

function setView(name) {
  state.view = name;
  drawn = '';
  refresh();
}

const toggleView = name => isPair() && setView(state.view === name ? 'side' : name);

function setDivider(percent) {
  state.divider = Math.min(100, Math.max(0, percent));
  refresh();
}

const isRevealed = () => document.body.dataset.rsReveal === 'on';

function toggleBlur() {
  document.body.dataset.rsReveal = isRevealed() ? 'off' : 'on';
  sessionStorage.setItem('rs-reveal', document.body.dataset.rsReveal); // for this tab, no longer
}

function showHelp(open) {
  const button = part('help'), popover = part('keys');
  if (!button || !popover) return;
  popover.hidden = !open;
  button.setAttribute('aria-expanded', String(open));
}

const isHelpOpen = () => part('keys')?.hidden === false;

const CLICKS = {
  play: toggle,
  back: () => stepBy(-1),
  forward: () => stepBy(1),
  speed: button => setSpeed(Number(button.value)),
  view: button => setView(button.value),
  blur: toggleBlur,
  help: () => showHelp(!isHelpOpen()),
};

const INPUTS = {
  scrub: input => scrub(Number(input.value)),
  divider: input => setDivider(Number(input.value)),
};

const KEYS = {
  'k': toggle,
  ',': () => stepBy(-1),
  '.': () => stepBy(1),
  'w': () => toggleView('wipe'),
  'd': () => toggleView('difference'),
  'b': toggleBlur,
  '[': () => shiftSpeed(-1),
  ']': () => shiftSpeed(1),
  '?': () => showHelp(!isHelpOpen()),
};

function onClick(event) {
  const element = event.target instanceof Element ? event.target : document.body;
  if (element.closest(PANES.join())) touched = performance.now();
  if (isHelpOpen() && !element.closest('[data-rs=keys], [data-rs=help]')) showHelp(false);
  const button = element.closest('.rs-player button[data-rs]');
  if (button) CLICKS[button.dataset.rs]?.(button);
}

function onInput(event) {
  const input = event.target;
  if (input.matches?.('.rs-player input[data-rs]')) INPUTS[input.dataset.rs]?.(input);
}

function isTyping(element) {
  if (element.isContentEditable || element.closest(TYPING)) return true;
  return element.matches('input') && !NOT_TYPED.includes(element.type);
}

function isShortcut(event) {
  const command = (event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState('AltGraph');
  const isSeen = roots.some(root => root.getClientRects().length);
  return !command && !event.defaultPrevented && isSeen && live().length > 0;
}

function onKey(event) {
  const [origin] = event.composedPath();
  const element = origin instanceof Element ? origin : document.body;
  if (element.closest(PANES.join())) touched = performance.now();
  if (event.key === 'Escape' && isHelpOpen()) {
    showHelp(false);
    part('help').focus();
  }
  if (!isShortcut(event) || isTyping(element)) return;
  const onBar = event.key === ' ' && element.closest('.rs-player') && !element.closest('button');
  const does = onBar ? toggle : KEYS[event.key.toLowerCase()];
  if (!does || (event.repeat && !',.'.includes(event.key))) return;
  event.preventDefault();
  does();
}

function dragDivider(event) {
  const frame = event.target.closest?.('.rs-player [data-rs=frame]');
  if (!frame || view() !== 'wipe') return;
  if (event.type === 'pointerdown') frame.setPointerCapture(event.pointerId);
  else if (!frame.hasPointerCapture(event.pointerId)) return;
  const box = frame.getBoundingClientRect();
  setDivider(100 * (event.clientX - box.left) / box.width);
}

// --- what the user sees -------------------------------------------------------------------------

// Only writes that change something: a write here calls the observer that may call refresh().
function put(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

function attribute(element, name, value) {
  if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function clock(time) {
  const hundredths = Math.floor(time * 100 + 1e-6);
  const two = number => String(number).padStart(2, '0');
  const seconds = Math.floor(hundredths / 100);
  return `${Math.floor(seconds / 60)}:${two(seconds % 60)}.${two(hundredths % 100)}`;
}

function refresh() {
  attribute(document.body, 'data-rs-view', view());
  if (!bar()) return;
  refreshTransport();
  refreshTime();
  refreshViews();
  draw();
}

function refreshTransport() {
  const isOn = live().length > 0;
  const isPlaying = isOn && state.playing;
  for (const name of ['play', 'back', 'forward', 'scrub', 'speed']) {
    parts(name).forEach(control => { control.disabled = !isOn; });
  }
  attribute(part('play'), 'aria-label', isPlaying ? 'Pause' : 'Play');
  attribute(bar(), 'data-playing', String(isPlaying));
  attribute(bar(), 'data-view', view());
  parts('speed').forEach(button =>
    attribute(button, 'aria-pressed', String(Number(button.value) === state.speed)));
}

function refreshTime() {
  const isOn = live().length > 0;
  const count = isOn ? frameCount() : 0, time = isOn ? state.frame * frameLength() : 0;
  const frame = `frame ${isOn ? state.frame + 1 : 0} of ${count}`;
  put(part('time'), `${clock(time)} / ${clock(duration())}`);
  put(part('frame-number'), frame);
  const range = part('scrub'), last = Math.max(0, count - 1) * frameLength();
  attribute(range, 'max', String(last || frameLength()));
  attribute(range, 'step', String(frameLength()));
  attribute(range, 'aria-valuetext', `${frame}, ${clock(time)}`);
  if (range && Math.abs(Number(range.value) - time) > 1e-9) range.value = String(time);
  range?.style.setProperty('--rs-fill', `${last ? 100 * time / last : 0}%`);
}

function refreshViews() {
  for (const button of parts('view')) {
    button.disabled = button.value !== 'side' && !isPair();
    attribute(button, 'aria-pressed', String(button.value === state.view));
  }
  parts('blur').forEach(button => attribute(button, 'aria-pressed', String(!isRevealed())));
  const frame = part('frame'), range = part('divider'), [first] = clips;
  if (isPair()) // the panes, too, take the shape of their videos
    document.body.style.setProperty('--rs-ratio', String(first.video.videoWidth / first.video.videoHeight));
  if (!frame || view() === 'side') return;
  frame.style.setProperty('--rs-divider', `${state.divider}%`);
  if (range && Number(range.value) !== Math.round(state.divider)) range.value = String(state.divider);
  attribute(range, 'aria-valuetext', `${Math.round(state.divider)} %`);
}

// --- drawing ------------------------------------------------------------------------------------

const isDrawable = ({ video }) => video.readyState >= 2 && !video.seeking;

/** Draw only when both videos show one frame, and only once: a difference of two moments would lie. */
function draw() {
  if (view() === 'side') return;
  const [original, unlearned] = clips.map(frameOf);
  const asked = [view(), ...clips.map(clip => `${clip.shown} ${clip.video.currentSrc}`)].join();
  if (original !== unlearned || asked === drawn || !clips.every(isDrawable)) return;
  drawn = asked;
  const videos = clips.map(clip => clip.video);
  if (view() === 'wipe') stage.drawEach(videos, [part('original'), part('unlearned')]);
  else tellMean(stage.drawDifference(videos, part('difference')));
  attribute(part('stage'), 'data-frame', String(original));
}

function tellMean(mean) {
  put(part('mean'), `mean difference ${mean.toFixed(1)} of 255`);
  stage.drawLegend(part('legend'));
}

// --- listening ----------------------------------------------------------------------------------

function onVisible() {
  if (!document.hidden && state.playing && live().length) go(state.frame);
}

document.addEventListener('click', onClick, true);
document.addEventListener('input', onInput);
document.addEventListener('change', endScrub);
document.addEventListener('pointerup', endScrub);
document.addEventListener('pointercancel', endScrub);
document.addEventListener('keydown', onKey);
document.addEventListener('pointerdown', dragDivider);
document.addEventListener('pointermove', dragDivider);
document.addEventListener('visibilitychange', onVisible);
new MutationObserver(bind).observe(document.body, { childList: true, subtree: true });
new MutationObserver(refresh).observe(document.body, { attributeFilter: ['data-rs-reveal'] });
document.body.dataset.rsReveal = sessionStorage.getItem('rs-reveal') === 'on' ? 'on' : 'off';
bind();
