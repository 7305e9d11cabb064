// Texts in the language of the page: each group of modules has a table a language.

import { app } from '../../../scripts/app.js'

// A function that gives the text `name` of `tables.en` or `tables.zh` with its {places} filled.
export function sayer(tables) {
  return (name, values = {}) => {
    const text = (language() === 'zh' ? tables.zh : tables.en)[name] ?? tables.en[name]
    return text.replace(/\{(\w+)\}/g, (all, key) => values[key] ?? all)
  }
}

export function language() {
  const found = app.extensionManager?.setting?.get('Comfy.Locale') ?? navigator.language ?? 'en'
  return found.startsWith('zh') ? 'zh' : 'en'
}
