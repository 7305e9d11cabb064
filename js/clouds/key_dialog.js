// A dialog with the fields for keys: by a button on a node, or before a run that would fail for want of one.

import { app } from '../../../scripts/app.js'
import { button, element } from '../lib/element.js'
import { keyForm } from './key_form.js'
import { listen, stateOf } from './key_states.js'
import { say } from './texts.js'

export const CATEGORY = 'Wan FLF2V' // of our settings
const LOOKS = 20
const BETWEEN = 100 // ms
let open = false

// Resolves with whether to go on; at once with no while another one is open. `providers` are the clouds in question,
// `run` whether a run waits for it.
export function askForKeys(providers, run) {
  if (open) return Promise.resolve(false) // a second press of Run, or a queue that fills itself
  open = true
  return new Promise(resolve => {
    const labels = providers.map(name => stateOf(name)?.label ?? name).join(', ')
    const dialog = element('dialog', { className: 'wan-clouds', ariaLabel: say('noKey', { labels }) })
    const end = value => {
      dialog.close(value)
    }
    const go = button(say('anyway'), say('anyway'), () => end('go'))
    const settings = button(say('settings'), say('settings'), () => {
      end('')
      openSettings()
    })
    const rows = [settings, ...(run ? [go] : []), button(say(run ? 'cancel' : 'close'), say(run ? 'cancel' : 'close'), () => end(''))]
    dialog.append(
      element('h2', { textContent: run ? say('noKey', { labels }) : say('keys') }),
      ...(run ? [element('p', { textContent: say('noKeyLong') })] : []),
      keyForm(providers),
      element('div', { className: 'row' }, ...rows),
    )
    const forget = listen(() => {
      const ready = providers.every(name => stateOf(name)?.state === 'set')
      go.textContent = go.title = go.ariaLabel = say(ready ? 'queue' : 'anyway')
    })
    dialog.addEventListener('keydown', event => event.stopPropagation()) // the canvas has keys of its own
    dialog.onclose = () => {
      open = false
      forget()
      dialog.remove()
      resolve(dialog.returnValue === 'go')
    }
    document.body.append(dialog)
    dialog.showModal()
    dialog.querySelector('input')?.focus()
  })
}

// At the page of the keys: the host's command knows no page, so the entry is pressed as a person would.
async function openSettings() {
  await app.extensionManager.command.execute('Comfy.ShowSettingsDialog')
  for (let looks = 0; looks < LOOKS; looks++) {
    const rows = [...document.querySelectorAll('[role=dialog] :is(button, li, [role=button], [role=option])')]
    const row = rows.find(each => each.textContent.trim() === CATEGORY)
    if (row) return row.click()
    await new Promise(resolve => setTimeout(resolve, BETWEEN))
  }
}
