"""The script that keeps both videos muted, looping and in step. Runs in the browser only."""

from __future__ import annotations

SYNC = """
() => {
  const A = '#vid-orig video', B = '#vid-edit video', find = s => document.querySelector(s);
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  function bind() {
    const a = find(A), b = find(B);
    for (const v of [a, b]) {
      if (!v || v.dataset.rsBound) continue;
      v.dataset.rsBound = '1'; v.muted = true; v.playsInline = true; v.loop = true;
      v.setAttribute('aria-label', v === a ? 'original video' : 'unlearned video');
      const other = () => find(v.closest('#vid-orig') ? B : A);
      const start = w => w.play().catch(() => {});
      v.addEventListener('play', () => { const o = other();
        if (o && o.paused) { o.currentTime = v.currentTime; start(o); } });
      v.addEventListener('pause', () => { const o = other(); if (o && !v.ended) o.pause(); });
      v.addEventListener('seeking', () => { const o = other();
        if (o && Math.abs(o.currentTime - v.currentTime) > 0.04) o.currentTime = v.currentTime; });
      v.addEventListener('ratechange', () => { const o = other(); if (o) o.playbackRate = v.playbackRate; });
      v.addEventListener('loadeddata', () => { const o = other();
        if (o) { o.currentTime = 0; v.currentTime = 0; }
        if (!calm) start(v); });
      if (!calm && v.readyState >= 2) start(v);
    }
  }
  new MutationObserver(bind).observe(document.body, {childList: true, subtree: true}); bind();
}
"""

REVEAL = "(on) => { document.body.dataset.rsReveal = on ? 'on' : 'off'; return on; }"
