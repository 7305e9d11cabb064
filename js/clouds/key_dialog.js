// A dialog with the fields for keys: by a button on a node, or before a run that would fail for want of one.

import { app } from '../../../scripts/app.js'
import { button, element } from '../lib/element.js'
import { keyForm } from './key_form.js'
import { listen, stateOf } from './key_states.js'
import { say } from './texts.js'

// Resolves with whether to go on. `providers` are the clouds in question, `run` whether a run waits for it.
export function askForKeys(providers, run) {
  return new Promise(resolve => {
    const labels = providers.map(name => stateOf(name)?.label ?? name).join(', ')
    const dialog = element('dialog', { className: 'wan-clouds', ariaLabel: say('noKey', { labels }) })
    const end = value => {
      dialog.close(value)
    }
    const go = button(say('anyway'), say('anyway'), () => end('go'))
    const settings = button(say('settings'), say('settings'), () => {
      end('')
      app.extensionManager.command.execute('Comfy.ShowSettingsDialog')
    })
    const rows = [settings, ...(run ? [go] : []), button(say(run ? 'cancel' : 'close'), say(run ? 'cancel' : 'close'), () => end(''))]
    dialog.append(
      element('h2', { textContent: run ? say('noKey', { labels }) : say('keys') }),
      ...(run ? [element('p', { textContent: say('noKeyLong') })] : []),
      keyForm(providers),
      element('div', { className: 'row' }, ...rows),
    )
    listen(() => {
      const ready = providers.every(name => stateOf(name)?.state === 'set')
      go.textContent = go.title = go.ariaLabel = say(ready ? 'queue' : 'anyway')
    })
    dialog.addEventListener('keydown', event => event.stopPropagation()) // the canvas has keys of its own
    dialog.onclose = () => {
      dialog.remove()
      resolve(dialog.returnValue === 'go')
    }
    document.body.append(dialog)
    dialog.showModal()
    dialog.querySelector('input')?.focus()
  })
}
