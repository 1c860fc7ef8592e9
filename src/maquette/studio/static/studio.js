// What every page needs: asking the API, toasts, dialogs, theme, keys, uploads, and the job at work.
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const on = (type, selector, act, root = document) => root.addEventListener(type, event => {
  const target = event.target.closest?.(selector);
  if (target) act(target, event);
});
const fire = (name, detail) => document.body.dispatchEvent(new CustomEvent(`studio:${name}`, { detail }));

async function api(method, path, body) { // JSON in, JSON out; a refusal is shown as its sentence and is null here
  const json = body === undefined || body instanceof FormData || body instanceof Blob ? {} : { "Content-Type": "application/json" };
  try {
    const answer = await fetch(path, { method, headers: json, body: json["Content-Type"] ? JSON.stringify(body) : body });
    const told = await answer.json().catch(() => ({}));
    if (answer.ok) return told;
    toast(told.error || (answer.status === 401 ? "Open the studio again by the address that it printed." : "The studio could not do that."));
  } catch { toast("The studio does not answer. Nothing is lost; try again in a moment."); }
  return null;
}
async function during(button, work) { // a button does nothing more until its work is done
  button.disabled = true;
  try { return await work; } finally { button.disabled = false; }
}
function toast(text, label, act) {
  const box = document.createElement("div");
  box.className = "toast";
  box.append(Object.assign(document.createElement("span"), { textContent: text }));
  const gone = setTimeout(() => box.remove(), label ? 12000 : 7000);
  if (label) {
    const button = Object.assign(document.createElement("button"), { className: "button", type: "button", textContent: label });
    button.onclick = () => { clearTimeout(gone); box.remove(); act(); };
    box.append(button);
  }
  const shelf = $("#toasts");
  shelf.append(box);
  if (shelf.matches(":popover-open")) shelf.hidePopover();
  shelf.showPopover(); // above an open dialog too
}
function open(dialog, from) {
  if (dialog.open) return;
  dialog.showModal();
  dialog.addEventListener("close", () => from?.focus(), { once: true });
  for (const part of $$("[data-fill]", dialog)) htmx.trigger(part, "studio:open");
}
on("click", "[data-open]", button => open($(`#${button.dataset.open}`), button));
on("click", "[data-close]", button => button.closest("dialog").close());
on("click", "dialog", (dialog, event) => { if (event.target === dialog) dialog.close(); }); // beside it: its parts fill it

function setTheme(value) {
  document.documentElement.toggleAttribute("data-theme", !!value);
  if (value) document.documentElement.dataset.theme = value;
  document.cookie = `theme=${value}; path=/; max-age=${value ? 31536000 : 0}; samesite=strict`;
  $$("[data-set-theme]").forEach(b => b.setAttribute("aria-pressed", b.dataset.setTheme === value));
}
on("click", "[data-theme-toggle]", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
});
on("click", "[data-set-theme]", button => setTheme(button.dataset.setTheme));
on("click", "[data-copy]", button => navigator.clipboard.writeText($("pre", button.parentElement).textContent).then(() => toast("Copied.")));
on("click", "[data-delete]", async button => {
  const sure = confirm(`Delete “${button.dataset.name}” with its photos, captions and trained files?`);
  if (sure && await api("DELETE", `/api/projects/${button.dataset.delete}`)) location.href = "/";
});
const typing = target => target.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select");
document.addEventListener("keydown", event => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && !event.target.matches("[data-caption]") && !$("dialog[open]")) {
    event.preventDefault();
    $("[data-main]:not([disabled])")?.click();
  } else if (event.key === "?" && !typing(event.target) && !$("dialog[open]")) open($("#keys"), document.activeElement);
});
// Uploads: one request a file, three at a time; what failed for want of a connection can be sent again.
async function files(transfer) {
  const found = [];
  const walk = async entry => {
    if (entry.isFile) found.push(await new Promise((yes, no) => entry.file(yes, no)));
    else for (const reader = entry.createReader(); ;) {
      const entries = await new Promise((yes, no) => reader.readEntries(yes, no));
      if (!entries.length) break;
      for (const inner of entries) await walk(inner);
    }
  };
  for (const entry of [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean)) await walk(entry);
  return found.length ? found : [...transfer.files];
}
async function upload(zone, list) {
  if (!list.length) return;
  let project = zone.dataset.drop;
  if (!project) {
    const name = list[0].webkitRelativePath?.split("/")[0] || "New project";
    project = (await api("POST", "/api/projects", { name, kind: "object" }))?.id;
    if (!project) return;
  }
  const shelf = $("[data-uploads]", zone), line = document.createElement("div");
  line.className = "upload";
  line.innerHTML = '<span></span><span class="numbers soft"></span><progress></progress>';
  shelf.replaceChildren(line);
  const [words, count, bar] = line.children, texts = list.filter(f => /\.txt$/i.test(f.name)), rest = list.filter(f => !texts.includes(f));
  words.textContent = "Adding photos";
  bar.max = list.length;
  let done = 0;
  const failed = [], skipped = [];
  const send = async file => {
    const form = new FormData();
    form.append("files", file, file.name);
    try {
      const answer = await fetch(`/api/projects/${project}/photos`, { method: "POST", body: form });
      const told = await answer.json().catch(() => ({}));
      if (!answer.ok) skipped.push({ name: file.name, message: told.error || `${file.name} is larger than the studio takes.` });
      else skipped.push(...told.skipped);
    } catch { failed.push(file); }
    bar.value = ++done;
    count.textContent = `${done}/${list.length}`;
  };
  const queue = [...rest];
  await Promise.all([1, 2, 3].map(async () => { while (queue.length) await send(queue.shift()); }));
  for (const text of texts) await send(text);
  line.remove();
  for (const [message, again] of [...skipped.map(s => [s.message]), ...(failed.length ? [[`${failed.length} files did not arrive.`, failed]] : [])]) {
    const note = Object.assign(document.createElement("div"), { className: "upload bad" });
    note.dataset.testid = "skipped";
    note.append(Object.assign(document.createElement("span"), { textContent: message }));
    if (again) note.append(Object.assign(document.createElement("button"), { className: "button", type: "button", textContent: "Send again", onclick: () => upload(zone, again) }));
    shelf.append(note);
  }
  if (zone.dataset.drop) { fire("cards"); fire("tags"); } else if (skipped.length < list.length) location.href = `/p/${project}/photos`;
}
on("change", "[data-drop] input[type=file]", input => { upload(input.closest("[data-drop]"), [...input.files]); input.value = ""; });
on("submit", "[data-drop]", (_, event) => event.preventDefault());
for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, async event => {
  const zone = event.target.closest?.("[data-drop]") || $(".board [data-drop]") || $(".empty [data-drop]");
  if (!zone || !event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  zone.classList.toggle("over", type === "dragover");
  if (type === "drop") upload(zone, await files(event.dataTransfer));
});
on("change", "[data-api]", async box => { await api("PATCH", "/api/settings", { api: box.checked }); htmx.trigger($("#settings [data-fill]"), "studio:open"); });
on("click", "[data-demo]", async button => {
  const made = await during(button, api("POST", "/api/demo", {}));
  if (made) location.href = `/p/${made.id}/photos`;
});
// The job at work: its events come by SSE, which goes on behind the last one after a break; pages fetch their pieces anew.
on("click", "[data-job-action]", async button => {
  const job = button.dataset.job || button.closest("[data-job]").dataset.job;
  if (!await during(button, api("POST", `/api/jobs/${job}/${button.dataset.jobAction}`))) return;
  if (button.dataset.jobAction === "sample") toast("A checkpoint with its pictures is made after this step.");
  if (button.dataset.go) follow(job, state => state === "paused" && (location.href = button.dataset.go));
  if (button.dataset.jobAction === "resume" && !$("#live")) location.reload();
  fire("strip"); fire("job", { kind: "state" });
});
on("click", "[data-move]", async button => { await api("POST", `/api/jobs/${button.dataset.job}/move`, { place: +button.dataset.move }); fire("strip"); });
let source, awaited = () => {};
const follow = (job, act) => { awaited = act; };
const studio = { last: 0, ids: [], breaks: 0 }; // what the tests of the connection look at
function listen(job) {
  if (source?.job === job) return;
  source?.close();
  source = new EventSource(`/api/jobs/${job}/events?after=${$("#live")?.dataset.after || 0}`);
  source.job = job;
  const lost = yes => { $("[data-offline]").hidden = !yes; };
  source.onopen = () => lost(false);
  source.onerror = () => { studio.breaks++; lost(true); if (source.readyState === EventSource.CLOSED) { source.job = null; setTimeout(() => listen(job), 3000); } };
  const heard = event => {
    lost(false);
    if (event.type !== "status") { studio.last = +event.lastEventId; if (studio.ids.push(studio.last) > 5000) studio.ids.shift(); }
    fire("job", { kind: event.type, data: event.data });
    if (event.type === "status") {
      const state = JSON.parse(event.data)?.state;
      awaited(state);
      if (["finished", "failed", "stopped"].includes(state) || !state) { source.close(); source = null; fire("strip"); fire("ended", { job, state }); }
    }
    if (event.type !== "metric" || Date.now() - (studio.strip || 0) > 1000) { studio.strip = Date.now(); fire("strip"); }
  };
  for (const kind of ["progress", "metric", "sample", "saved", "measured", "warning", "state", "status"]) source.addEventListener(kind, heard);
}
function watch() {
  const strip = $("[data-testid=strip]"), job = $("#live")?.dataset.job || strip?.dataset.job;
  document.title = document.title.replace(/^\d+ % · [^·]*· |^\d+ % · /, "");
  if (strip?.dataset.title) document.title = `${strip.dataset.title} · ${document.title}`;
  if (job && !studio.ended?.has(job)) listen(job);
}
document.body.addEventListener("studio:ended", event => { (studio.ended ||= new Set()).add(event.detail.job); });
document.addEventListener("htmx:afterSwap", event => { if (event.target.id === "strip") watch(); });
document.addEventListener("htmx:sendError", () => { $("[data-offline]").hidden = false; });
document.addEventListener("htmx:afterRequest", event => { if (event.detail.successful) $("[data-offline]").hidden = true; });
setInterval(() => { if (!source && !document.hidden) fire("strip"); }, 5000);
watch();
