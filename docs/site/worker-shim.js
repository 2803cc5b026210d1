// Pages that are opened from a folder may start no worker, and the theme's search is one. Here a hidden frame stands in:
// it runs the worker's script, and hands messages over as a worker would. Nothing is fetched but files beside the page.
// With a server the browser's own workers are kept.
// Either way, the two dashes before an option's name are left out of a query: to the search they would forbid the word.
const withoutDashes = message =>
  typeof message?.data === "string" ? { ...message, data: message.data.replace(/(^|\s)--+(?=\S)/g, "$1") } : message
const post = Worker.prototype.postMessage
Worker.prototype.postMessage = function (message, ...others) {
  return post.call(this, withoutDashes(message), ...others)
}
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame) // there may be no body yet
      const inside = frame.contentWindow
      const load = url => new Promise((resolve, reject) => {
        const script = inside.document.createElement("script")
        script.onload = resolve
        script.onerror = () => reject(new Error(`${url} cannot be loaded`))
        script.src = url
        inside.document.head.append(script)
      })
      const report = error => this.dispatchEvent(new ErrorEvent("error", { message: error.message, error }))
      // one after another, as in a worker; the search waits for the promise
      inside.importScripts = (...urls) => urls.reduce(
        (before, url) => before.then(() => load(new URL(url, address))), Promise.resolve())
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.postMessage = data => { waiting.push(data) }
      const give = data => inside.dispatchEvent(new inside.MessageEvent("message", { data: withoutDashes(data) }))
      load(new URL(address, document.baseURI)).then(() => {
        this.postMessage = data => { setTimeout(() => give(data)) }
        waiting.forEach(this.postMessage)
      }, report)
      this.terminate = () => frame.remove()
    }
  }
}
