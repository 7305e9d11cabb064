// The clip that a node is about: its size and length, and the model that makes it.

import { upwards, value, widget } from './graph.js'

const MODEL_INPUTS = ['model', 'high_noise']
const LOADERS = { WanFLF2VLoadPipeline: 'folder', WanFLF2VLoadModel: 'model_name' }
const FPS = 16 // what the model was trained for, where no widget says another

export const hasSize = node => Boolean(widget(node, 'width') && widget(node, 'height'))

// {width, height, length, fps, each} of the clip; a value is undefined where it comes from elsewhere.
export function clipOf(node) {
  const sized = upwards(node, ['latent', 'positive'], hasSize)
  if (!sized) return null
  const each = !widget(sized, 'length') // of a chain's clips
  const length = value(sized, each ? 'segment_length' : 'length')
  return { width: value(sized, 'width'), height: value(sized, 'height'), length, fps: value(sized, 'fps') ?? FPS, each }
}

// What the server needs to know of the loader that a node's model comes from; null where none is connected.
export function modelOf(node) {
  let gpus
  const loader = upwards(node, MODEL_INPUTS, each => {
    gpus ??= each.type === 'WanFLF2VMultiGPU' ? value(each, 'gpus') : undefined
    return each.type in LOADERS
  })
  if (!loader) return null
  const asked = { gpus: gpus ?? 1 }
  for (const name of [LOADERS[loader.type], 'weight_dtype', 'attention', 'compile']) asked[name] = value(loader, name)
  return asked
}
