// Elements of a page, in one line each.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value
    else made.setAttribute(name, value)
  }
  made.append(...children)
  return made
}

// `label` is what a screen reader says, where the text alone would not be enough.
export function button(text, label, press) {
  return element('button', { type: 'button', textContent: text, title: label, ariaLabel: label, onclick: press })
}
