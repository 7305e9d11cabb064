// A tab beside the graph with every clip that was ordered from a cloud on this machine.

import { app } from '../../scripts/app.js'
import { addStyle } from './clouds/style.js'
import { Panel } from './clouds/panel.js'
import { say } from './clouds/texts.js'

let panel = null

app.registerExtension({
  name: 'WanFLF2V.jobs',
  setup() {
    addStyle()
    app.extensionManager.registerSidebarTab({
      id: 'wan-flf2v-jobs',
      icon: 'pi pi-cloud-download',
      title: say('jobs'),
      tooltip: say('jobsLong'),
      type: 'custom',
      render(place) {
        panel?.close()
        panel = new Panel(place)
      },
      destroy() {
        panel?.close()
        panel = null
      },
    })
  },
})
