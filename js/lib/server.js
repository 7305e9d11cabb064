// The pack's own addresses of the server. What it refuses is thrown with the text that it gives.

import { api } from '../../../scripts/api.js'

const ROOT = '/wan_flf2v'

export const get = (path, asked = {}) => answered(`${path}?${new URLSearchParams(asked)}`, { cache: 'no-store' })

export function post(path, asked = {}) {
  const headers = { 'Content-Type': 'application/json' }
  return answered(path, { method: 'POST', headers, body: JSON.stringify(asked) })
}

// Where an image lies, for an img.
export const address = (path, asked) => api.apiURL(`${ROOT}${path}?${new URLSearchParams(asked)}`)

async function answered(path, options) {
  const answer = await api.fetchApi(ROOT + path, options)
  const found = await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Error(found.problem ?? `${answer.status} ${answer.statusText}`)
  return found
}
