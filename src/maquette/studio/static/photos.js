// The photo board. Everything is addressed by the photo's id, which is the hash of its content, never by its place.
const project = $("[data-project]").dataset.project, base = `/api/projects/${project}`;
const cardOf = element => element.closest("[data-id]"), cards = () => $$("#cards [data-id]:not(.filtered)");
const change = (card, body) => api("PATCH", `${base}/photos/${card.dataset.id}`, body);
const selected = () => $$("#cards [data-select]:checked").map(box => cardOf(box).dataset.id);
const undoStack = [], serverUndo = () => api("POST", `${base}/undo`); // captions are taken back here, all else by the server
async function undo() {
  const told = await (undoStack.pop() || serverUndo)();
  if (told?.undone === null) toast("There is nothing to undo.");
  fire("cards"); fire("tags");
}
on("click", "[data-undo]", undo);
// Name, kind and words of the project
on("change", "[data-about] input", async input => {
  if (!input.checkValidity()) return input.reportValidity();
  const told = await api("PATCH", base, { [input.name]: input.value });
  if (told) { $("h1").textContent = told.name; for (const place of $$(".mono", input.form)) place.textContent = told.phrase; }
});
on("submit", "[data-about]", (_, event) => event.preventDefault());
// Captions: saved when the field is left, or a while after the last key
const waiting = new Map();
async function save(field) {
  clearTimeout(waiting.get(field));
  if (!waiting.delete(field)) return;
  const card = cardOf(field), before = field.defaultValue, text = field.value;
  const told = await change(card, { caption: text, version: +card.dataset.version });
  if (!told) return;
  field.defaultValue = told.caption;
  card.dataset.version = told.version;
  $("[data-saved]", card).textContent = told.conflict ? "Saved. Another page had changed it too." : "Saved";
  setTimeout(() => { if (!told.conflict) $("[data-saved]", card).textContent = ""; }, 2000);
  undoStack.push(() => change(card, { caption: before }));
  fire("tags");
}
on("input", "[data-caption]", field => { clearTimeout(waiting.get(field)); waiting.set(field, setTimeout(() => save(field), 1500)); });
on("focusout", "[data-caption]", save);
addEventListener("pagehide", () => { for (const field of waiting.keys()) fetch(`${base}/photos/${cardOf(field).dataset.id}`, { method: "PATCH", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ caption: field.value }) }); });
// Leave out, select
async function exclude(card) {
  if (await change(card, { excluded: !card.classList.contains("excluded") })) { undoStack.push(serverUndo); fire("cards"); }
}
on("click", "[data-exclude]", button => exclude(cardOf(button)));
const scope = () => { const n = selected().length; if ($("[data-scope]")) $("[data-scope]").textContent = n ? `on ${n} selected` : "on all photos"; };
on("change", "[data-select]", scope);
// Tags: a click filters, the others change all photos or the selected ones
let filter = "";
const tagsOf = card => $("[data-caption]", card).value.split(",").map(tag => tag.trim());
function show() {
  for (const card of $$("#cards [data-id]")) card.classList.toggle("filtered", !!filter && !tagsOf(card).includes(filter));
  for (const tag of $$("[data-tag]")) tag.setAttribute("aria-pressed", tag.dataset.tag === filter);
  scope();
}
on("click", "[data-tag]", tag => { filter = filter === tag.dataset.tag ? "" : tag.dataset.tag; show(); });
async function edit(action, tag, to = "") {
  if (!tag) return;
  const photos = selected(), told = await api("POST", `${base}/tags`, { action, tag, to, ...(photos.length ? { photos } : {}) });
  if (!told) return;
  const which = photos.length ? "selected photos" : "photos";
  if (!told.changed) return toast(action === "add" ? `All ${which} have “${tag}” already.` : `None of the ${which} has “${tag}”.`);
  undoStack.push(serverUndo);
  toast(`${{ add: "Added", remove: "Removed", replace: "Replaced" }[action]} “${tag}” on ${told.changed} photo${told.changed === 1 ? "" : "s"}.`, "Undo", undo);
  fire("cards"); fire("tags");
}
on("click", "[data-remove-tag]", button => edit("remove", button.dataset.removeTag));
on("submit", "[data-add-tag]", (form, event) => { event.preventDefault(); edit("add", form.tag.value.trim()); form.reset(); });
on("submit", "[data-replace]", (form, event) => { event.preventDefault(); edit("replace", form.find.value.trim(), form.replace.value.trim()); });
on("click", "[data-describe]", async () => { if (await api("POST", `${base}/jobs`, { kind: "caption" })) { toast("The photos are being described."); fire("strip"); } });
document.body.addEventListener("studio:ended", () => { fire("cards"); fire("tags"); });
// Crop: drag the frame, or Shift and arrows
function place(svg, x, y, w, h) {
  const [W, H] = svg.getAttribute("viewBox").split(" ").slice(2).map(Number);
  w = Math.floor(w); h = Math.floor(h);
  x = Math.round(Math.min(Math.max(0, x), W - w)); y = Math.round(Math.min(Math.max(0, y), H - h));
  $(".dim", svg).setAttribute("d", `M0 0H${W}V${H}H0Z M${x} ${y}h${w}v${h}h-${w}Z`);
  $("rect", svg).setAttribute("x", x); $("rect", svg).setAttribute("y", y);
  svg.dataset.crop = [x, y, w, h];
}
const cropOf = svg => svg.dataset.crop.split(",").map(Number);
async function keep(svg, before) {
  const card = cardOf(svg), after = cropOf(svg);
  if (String(after) === String(before)) return;
  if (await change(card, { crop: after })) undoStack.push(serverUndo);
}
let drag;
on("pointerdown", ".crop rect", (rect, event) => {
  const svg = rect.ownerSVGElement;
  drag = { svg, before: cropOf(svg), x: event.clientX, y: event.clientY, scale: svg.getScreenCTM().a };
  rect.setPointerCapture(event.pointerId); event.preventDefault();
});
on("pointermove", ".crop rect", (_, event) => {
  if (!drag) return;
  const { svg, before: [x, y, w, h], scale } = drag;
  place(svg, x + (event.clientX - drag.x) / scale, y + (event.clientY - drag.y) / scale, w, h);
});
for (const type of ["pointerup", "pointercancel"]) document.addEventListener(type, () => { if (drag) { const { svg, before } = drag; drag = null; keep(svg, before); } });
// Masks: what is painted counts
const stage = $("[data-mask-stage]"), brush = new Brush(stage);
let painted; // the card whose photo is on the stage
const picture = async src => { const made = Object.assign(new Image(), { src, alt: "" }); await made.decode(); return made; };
on("click", "[data-mask]", async button => {
  painted = cardOf(button);
  const photo = await picture($("img", painted).src + "?size=large"), { canvas, pen } = brush;
  brush.over(photo);
  if (button.ariaPressed === "true") {
    pen.drawImage(await picture(`${base}/photos/${painted.dataset.id}/mask?${Date.now()}`), 0, 0, canvas.width, canvas.height);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([224, 68, 42, pixels.data[i]], i); // white is painted
    pen.putImageData(pixels, 0, 0);
  }
  stage.replaceChildren(photo, canvas);
  open($("#mask"), button);
});
const erase = () => { brush.erasing = !brush.erasing; $("[data-erase]").ariaPressed = brush.erasing; };
const widen = by => { brush.size = $("[data-brush]").value = +$("[data-brush]").value + by; };
on("input", "[data-brush]", () => widen(0));
on("click", "[data-erase]", erase);
on("click", "[data-clear]", () => brush.clear());
on("click", "[data-save-mask]", async () => {
  const path = `${base}/photos/${painted.dataset.id}/mask`, image = brush.url();
  if (image ? await api("PUT", path, { image }) : await api("DELETE", path)) { $("#mask").close(); fire("cards"); }
});
document.addEventListener("keydown", event => {
  if (!$("#mask").open) return;
  if ("[]".includes(event.key)) widen(event.key === "]" ? 12 : -12);
  else if (event.key === "e") erase();
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) brush.undo();
});
// Keys among the cards: one of them is in the order of tabs
function go(card) { for (const other of cards()) other.tabIndex = other === card ? 0 : -1; card.focus(); }
document.addEventListener("keydown", event => {
  const card = event.target.closest?.("#cards [data-id]"), list = cards(), mod = event.ctrlKey || event.metaKey;
  if (event.target.matches("[data-caption]")) {
    const next = list[list.indexOf(card) + 1];
    if (event.key === "Escape") { event.target.blur(); go(card); }
    else if (mod && event.key === "Enter") { event.preventDefault(); save(event.target); if (next) { go(next); $("[data-caption]", next).focus(); } else go(card); }
    return;
  }
  if (typing(event.target) || $("dialog[open]")) return;
  if (mod && event.key === "z") { event.preventDefault(); undo(); return; }
  if (mod && event.key === "a" && list.length) { event.preventDefault(); $$("[data-select]").forEach(box => { box.checked = !cardOf(box).matches(".filtered"); }); scope(); return; }
  if (!card || mod) return;
  const across = list.filter(other => other.offsetTop === list[0].offsetTop).length, at = list.indexOf(card);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
  if (step && event.shiftKey && $(".crop", card)) {
    event.preventDefault();
    const svg = $(".crop", card), before = cropOf(svg), [x, y, w, h] = before, far = Math.max(w, h) / 20;
    place(svg, x + ({ ArrowLeft: -far, ArrowRight: far }[event.key] || 0), y + ({ ArrowUp: -far, ArrowDown: far }[event.key] || 0), w, h);
    return void keep(svg, before);
  }
  if (step) { event.preventDefault(); if (list[at + step]) go(list[at + step]); return; }
  if (event.target !== card) return;
  const act = { Enter: () => $("[data-caption]", card).focus(), " ": () => $("[data-select]", card).click(), x: () => exclude(card), m: () => $("[data-mask]", card).click() }[event.key];
  if (act) { event.preventDefault(); act(); }
});
// After a new fetch of the cards: what was selected, filtered and in focus stays so; a caption being typed is not lost
let kept;
document.addEventListener("htmx:beforeSwap", event => {
  if (event.target.id !== "cards") return;
  const field = document.activeElement?.matches("[data-caption]") ? document.activeElement : null;
  kept = { selected: selected(), focus: document.activeElement?.closest("#cards [data-id]")?.dataset.id, field: !!field, typed: [...waiting.keys()].map(f => [cardOf(f).dataset.id, f.value]), at: field?.selectionStart };
});
document.addEventListener("htmx:afterSwap", event => {
  if (event.target.id === "tags") return show();
  if (event.target.id !== "cards" || !kept) return;
  for (const id of kept.selected) { const box = $(`#photo-${id} [data-select]`); if (box) box.checked = true; }
  waiting.clear();
  for (const [id, text] of kept.typed) { const field = $(`#photo-${id} [data-caption]`); if (field) { field.value = text; waiting.set(field, setTimeout(() => save(field), 1500)); } }
  const card = kept.focus && $(`#photo-${kept.focus}`);
  if (card) { go(card); if (kept.field) { const field = $("[data-caption]", card); field.focus(); field.setSelectionRange(kept.at, kept.at); } }
  show();
});
// Other tabs: what they change shows here too
let stamp = "";
async function look() {
  if (document.hidden) return;
  const told = await fetch(`/ui/p/${project}/stamp`).then(answer => answer.ok ? answer.text() : "", () => "");
  if (told && stamp && told !== stamp) { fire("cards"); fire("tags"); }
  stamp = told || stamp;
}
look();
setInterval(look, 3000);
