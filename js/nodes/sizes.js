// Buttons for usual sizes that keep the aspect of the first image.

import { api } from '../../../scripts/api.js'
import { button, element } from '../lib/element.js'
import { set, source, undoable, value } from './graph.js'
import { say } from './say.js'

const STEP = 16 // pixels; sides are multiples of it
const AREAS = { '480p': [832, 480], '720p': [1280, 720] }

// [width, height] of about the area of `usual` in the aspect `width / height`.
export function fitted([wide, high], aspect) {
  const height = Math.sqrt((wide * high) / aspect)
  return [height * aspect, height].map(side => Math.max(STEP, Math.round(side / STEP) * STEP))
}

export function sizes(node) {
  const press = usual => async () => {
    const aspect = (await aspectOf(source(node, 'first_image') ?? source(node, 'images'))) ?? usual[0] / usual[1]
    put(node, fitted(usual, aspect))
  }
  const turn = () => put(node, [value(node, 'height'), value(node, 'width')])
  const usual = Object.entries(AREAS).map(([name, area]) => button(name, say('sizeOf', { name }), press(area)))
  const row = element('div', { className: 'wan-flf2v-row', role: 'group', ariaLabel: say('sizes') }, ...usual)
  row.append(button(say('turn'), say('turnLong'), turn))
  return row
}

function put(node, [width, height]) {
  undoable(() => {
    set(node, 'width', width)
    set(node, 'height', height)
  })
}

// Width over height of what an image node shows, or of its file; undefined where neither is there.
async function aspectOf(node) {
  const shown = node?.imgs?.[0]
  if (shown?.naturalWidth) return shown.naturalWidth / shown.naturalHeight
  const name = value(node, 'image')
  if (typeof name !== 'string') return undefined
  const [, folder, file] = /^(?:(.*)\/)?([^/]+)$/.exec(name) ?? []
  const image = new Image()
  image.src = api.apiURL(`/view?${new URLSearchParams({ filename: file, subfolder: folder ?? '', type: 'input' })}`)
  try {
    await image.decode()
    return image.naturalWidth / image.naturalHeight
  } catch {
    return undefined
  }
}
