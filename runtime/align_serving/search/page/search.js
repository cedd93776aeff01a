"use strict";
// Names and texts are a stranger's: they are only ever set as text.
const find = (id) => document.getElementById(id);
const form = find("form"), text = find("text"), file = find("file"), folder = find("folder");
const results = find("results"), status = find("status"), query = find("query");
const MAX_IMAGE = 20 * 1024 * 1024;
const unlock = find("unlock"), key = find("key");
let folders = [], latest = 0, shown = null, loading = new AbortController(), known = "";
try {
  known = sessionStorage.getItem("key") || "";
} catch { /* blocked as cookies may be: the page asks again after a reload */ }

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function say(message, failed = false) {
  status.textContent = message;
  status.classList.toggle("failed", failed);
}

async function fetched(path, options = {}) {
  const headers = {...options.headers, ...known && {authorization: `Bearer ${known}`}};
  const answer = await fetch(path, {...options, headers});
  if (answer.ok) return answer;
  if (answer.status === 401) {
    form.hidden = true;
    unlock.hidden = false;
    throw new Error(known ? "The API key is wrong." : "This page needs an API key.");
  }
  const value = await answer.json().catch(() => ({}));
  throw new Error(value.error ? value.error.message : answer.statusText);
}

async function asked(path, body) {
  const answer = await fetched(path, body && {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body),
  });
  return answer.json();
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("error", () => reject(new Error("The file cannot be read.")));
    reader.addEventListener("load", () => resolve(reader.result));
    reader.readAsDataURL(blob);
  });
}

async function search(wanted, label, preview) {
  const number = ++latest, start = performance.now();
  shown = {wanted, label, preview};
  loading.abort(); // thumbnails of the search before
  loading = new AbortController();
  query.hidden = !label;
  if (label) leaveWords();
  const image = preview ? [made("img", {src: preview, alt: "", onerror: (event) => event.target.remove()})] : [];
  query.replaceChildren(...image, made("bdi", {textContent: label || ""}));
  say("Searching…");
  try {
    const chosen = Number(folder.value) || 0;
    const found = await asked("/v1/search", {...wanted, folder: chosen, top: 48});
    if (number !== latest) return; // a later search has begun
    results.className = folders[chosen].kind;
    results.replaceChildren(...found.data.map((hit) => card(hit, chosen)));
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    say(`${found.data.length} of ${found.rows.toLocaleString("en")} ${folders[chosen].kind}, ${seconds} s`);
  } catch (error) {
    if (number !== latest) return;
    results.replaceChildren();
    say(error.message, true);
  }
}

function leaveWords() {
  text.value = "";
  if (location.hash) history.pushState(null, "", location.pathname); // the back button returns to the words
}

function card(hit, chosen) {
  const facts = made("div", {},
    made("span", {className: "score", textContent: `${hit.rank} · ${hit.score.toFixed(3)}`}), " ",
    made("bdi", {className: "id", textContent: hit.id}));
  if (folders[chosen].kind === "texts") {
    const known = hit.text !== null;
    const words = made("p", {className: known ? "" : "missing",
      textContent: known ? hit.text : "The text was not found among the inputs."});
    return made("li", {}, words, facts);
  }
  const image = made("img", {alt: hit.id});
  const similar = made("button", {type: "button", className: "similar", title: "Find what is similar"}, image);
  similar.setAttribute("aria-label", `Find what is similar to ${hit.id}`);
  similar.addEventListener("click", () => {
    scrollTo({top: 0});
    search({like: {folder: chosen, row: hit.row}}, `similar to ${hit.id}`, image.complete && image.naturalWidth ? image.src : "");
  });
  show(image, hit.thumbnail, loading.signal).catch((error) => {
    if (error.name !== "AbortError") similar.replaceWith(made("p", {className: "missing", textContent: `Not shown: ${error.message}`}));
  });
  return made("li", {}, similar, facts);
}

async function show(image, path, signal) {
  image.src = await dataUrl(await (await fetched(path, {signal})).blob()); // a fetch, as an element sends no API key
}

async function searchImage(chosen) {
  if (!chosen) return;
  if (chosen.size > MAX_IMAGE) {
    say(`The image has ${(chosen.size / 1e6).toFixed(0)} MB; expected at most ${MAX_IMAGE / 1e6 | 0}.`, true);
    return;
  }
  try {
    const data = await dataUrl(chosen);
    search({input: {image: data.slice(data.indexOf(",") + 1)}}, chosen.name || "pasted image", data);
  } catch (error) {
    say(error.message, true);
  }
}

function searchText() {
  const words = text.value.trim();
  if (!words) return;
  const hash = `#${encodeURIComponent(words)}`;
  if (location.hash === hash) search({input: {text: words}});
  else location.hash = hash; // the back button returns to it
}

function fromAddress() {
  let words = "";
  try {
    words = decodeURIComponent(location.hash.slice(1));
  } catch {
    return;
  }
  if (!words) return;
  text.value = words;
  search({input: {text: words}});
}

form.addEventListener("submit", (event) => { event.preventDefault(); searchText(); });
file.addEventListener("change", () => { searchImage(file.files[0]); file.value = ""; });
find("choose").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); file.click(); }
});
folder.addEventListener("change", () => { if (shown) search(shown.wanted, shown.label, shown.preview); });
addEventListener("hashchange", fromAddress);
addEventListener("paste", (event) => {
  const image = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (image) { event.preventDefault(); searchImage(image); }
});
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  searchImage(event.dataTransfer.files[0]);
});

unlock.addEventListener("submit", (event) => {
  event.preventDefault();
  known = key.value.trim();
  key.value = "";
  start();
});

async function start() {
  try {
    folders = (await asked("/v1/folders")).data;
  } catch (error) {
    say(error.message, true);
    return;
  }
  try {
    sessionStorage.setItem("key", known); // until the tab is closed
  } catch { /* see above */ }
  form.hidden = false;
  unlock.hidden = true;
  folder.replaceChildren(...folders.map((one, number) =>
    made("option", {value: number, textContent: `${one.name} (${one.rows.toLocaleString("en")} ${one.kind})`})));
  folder.hidden = folders.length < 2;
  const rows = folders.map((one) => `${one.rows.toLocaleString("en")} ${one.kind}`).join(", ");
  say(`${rows}. Type words, or choose, drop or paste an image.`);
  fromAddress();
}

start();
