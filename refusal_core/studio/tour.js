window.rsTour = function () {
  document.querySelector('.rs-tour')?.remove();
  const texts = document.querySelector('#tour-texts');
  if (!texts) return;
  const steps = [...texts.querySelectorAll('li')];
  const word = name => texts.querySelector(`[data-word=${name}]`).textContent;
  const before = document.activeElement;
  let index = 0;

  const box = document.createElement('div');
  box.className = 'rs-tour';
  box.setAttribute('role', 'dialog');
  box.setAttribute('aria-live', 'polite');
  const text = box.appendChild(document.createElement('p'));
  const row = box.appendChild(document.createElement('div'));
  const skip = button(word('skip'), end);
  const next = button(word('next'), () => (index + 1 < steps.length ? show(index + 1) : end()));
  row.append(skip, next);
  document.body.append(box);
  box.addEventListener('keydown', e => { if (e.key === 'Escape') end(); });

  function button(label, press) {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = label;
    made.addEventListener('click', press);
    return made;
  }

  function place(step) {
    return document.querySelector(step.dataset.place);
  }

  function show(number) {
    mark(false);
    index = number;
    text.textContent = `${number + 1} / ${steps.length}  ${steps[number].textContent}`;
    box.setAttribute('aria-label', text.textContent);
    next.textContent = word(number + 1 < steps.length ? 'next' : 'end');
    skip.hidden = number + 1 === steps.length;
    mark(true);
    next.focus({preventScroll: true});
  }

  function mark(on) {
    const target = place(steps[index]);
    target?.classList.toggle('rs-toured', on);
    if (on) target?.scrollIntoView({block: 'center', behavior: 'instant'});
  }

  function end() {
    mark(false);
    box.remove();
    localStorage.setItem('rs-toured', '1');
    window.scrollTo({top: 0, behavior: 'instant'});
    before?.focus?.({preventScroll: true});
  }

  show(0);
};
