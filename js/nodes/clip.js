// The clip that a node is about: its size and length, and the model that makes it.

import { upwards, value, widget } from './graph.js'

const MODEL_INPUTS = ['model', 'high_noise']
const LOADERS = { WanFLF2VLoadPipeline: 'folder', WanFLF2VLoadModel: 'model_name' }
const MULTI_GPU = 'WanFLF2VMultiGPU'
const SPREAD = ['gpus', 'ulysses', 'ring', 'cfg_parallel', 'fsdp', 'ray_address']
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

// What the server needs to know of the loader that a node's model comes from, and of the GPUs that it is spread over;
// null where none is connected, or where another node gives the number of GPUs.
export function modelOf(node) {
  let spread
  const loader = upwards(node, MODEL_INPUTS, each => {
    if (each.type === MULTI_GPU) spread ??= each
    return each.type in LOADERS
  })
  if (!loader || (spread && value(spread, 'gpus') === undefined)) return null
  const names = [LOADERS[loader.type], 'weight_dtype', 'attention', 'compile']
  const asked = Object.fromEntries(names.map(name => [name, value(loader, name)]))
  for (const name of spread ? SPREAD : []) asked[name] = value(spread, name)
  return asked
}
