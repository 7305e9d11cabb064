// A row a cloud: how its key stands, and a field for a new one.

import { element } from '../lib/element.js'
import { listen, refresh, stateOf, states, store } from './key_states.js'
import { say } from './texts.js'

// `providers`: of which clouds; all if left out.
export function keyForm(providers) {
  const box = element('div', { className: 'wan-clouds' })
  let rows = []
  const fill = () => {
    const wanted = states().filter(row => !providers || providers.includes(row.provider))
    if (rows.length || !wanted.length) return
    rows = wanted.map(keyRow)
    box.replaceChildren(...rows.map(row => row.element), element('p', { className: 'small', textContent: say('keyPrivate') }))
  }
  box.changed = () => {
    fill()
    for (const row of rows) row.show()
  }
  // Nobody says when the settings drop their form: it is not held, and once it is gone it is not told any more.
  const there = new WeakRef(box)
  const forget = listen(() => (there.deref() ?? { changed: forget }).changed())
  refresh().catch(error => box.prepend(element('p', { className: 'warn', role: 'alert', textContent: error.message })))
  fill()
  return box
}

function keyRow({ provider, label, site }) {
  const told = element('span', { className: 'small', role: 'status' })
  const label_ = say('keyOf', { label })
  const field = element('input', { type: 'password', autocomplete: 'off', spellcheck: false, ariaLabel: label_, placeholder: say('paste', { site }) })
  field.dataset.provider = provider
  const form = element('form', { className: 'row' }, field, element('button', { type: 'submit', textContent: say('store'), ariaLabel: say('storeLong', { label }) }))
  const show = () => {
    const row = stateOf(provider)
    told.textContent = textOf(row)
    told.classList.toggle('warn', row.state !== 'set')
    form.hidden = row.by_environment
    form.style.display = row.by_environment ? 'none' : ''
  }
  form.onsubmit = async event => {
    event.preventDefault()
    event.stopPropagation()
    const key = field.value
    field.value = ''
    try {
      await store(provider, key)
      told.textContent = say('stored')
    } catch (error) {
      told.textContent = error.message
      told.classList.add('warn')
      field.focus()
    }
  }
  for (const kind of ['keydown', 'keyup', 'paste', 'copy', 'cut']) field.addEventListener(kind, event => kind === 'keydown' && event.key === 'Escape' ? undefined : event.stopPropagation())
  show()
  return { show, element: element('div', { className: 'key' }, element('strong', { textContent: label }), ': ', told, form) }
}

export function textOf(row) {
  if (row.state === 'unusable') return say('keyUnusable', row)
  if (row.by_environment) return say('keyBy', row)
  return say(row.state === 'set' ? 'keySet' : 'keyMissing')
}
