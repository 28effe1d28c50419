"use strict";
(() => {
  // The gallery: cards are made of what is near the reader's eyes, and only by text nodes and attributes.
  const gallery = document.getElementById("section-gallery");
  const form = gallery.querySelector("form");
  if (!form) return;
  const CHUNK = 24;
  const NEAR = "1500px 0px";
  const cards = JSON.parse(document.getElementById("section-gallery-cards").textContent);
  const total = cards.anchor.length;
  const kept = cards.reason.filter((reason) => reason === null).length;
  const place = new Map(cards.anchor.map((anchor, card) => [anchor, card]));
  const find = (selector) => gallery.querySelector(selector);
  const [words, rows, reason, order, score] = ["words", "rows", "reason", "order", "score"].map((name) => form.elements.namedItem(name));
  const chunks = find(".chunks");
  const more = find(".more button");
  const reasons = [...reason.options].slice(1).map((option) => option.textContent.replace(/ \([^()]*\)$/, ""));
  const whole = (value) => value.toLocaleString("en-US");

  // Photos: a block of them is read when one of it is first needed; each becomes one element that all its cards use.
  const blocks = [...document.querySelectorAll("script.block")];
  const read = new Map();
  const album = find(".photos defs");
  const svg = (name) => document.createElementNS(album.namespaceURI, name);
  const set = (node, attributes) => Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  const BLOCK = blocks.length ? JSON.parse(blocks[0].textContent).length : 1;
  const photo = (number) => {
    const id = `photo-${number}`;
    const there = document.getElementById(id);
    if (there) return there;
    const block = Math.floor(number / BLOCK);
    if (!read.has(block)) read.set(block, JSON.parse(blocks[block].textContent));
    const [width, height, data] = read.get(block)[number % BLOCK];
    const image = svg("image");
    set(image, { id, width, height, href: `data:image/webp;base64,${data}` });
    album.append(image);
    return image;
  };

  const fixed = (value) => value.toFixed(2).replace("-", "−");
  const share = (value) => (value === 0 || value >= 0.001 ? (100 * value).toFixed(1) : "<0.1");
  const measures = [
    ["score", "score", fixed],
    ["area", "area", (value) => `${share(value)} %`],
    ["iou", "IoU", fixed],
    ["similarity", "similarity", fixed],
    ["objects", "objects", String],
  ];
  const mould = document.getElementById("section-gallery-card").content.firstElementChild;
  const make = (card) => {
    const node = mould.cloneNode(true);
    const part = (selector) => node.querySelector(selector);
    const shown = photo(cards.photo[card]);
    const phrase = cards.phrase[card];
    const why = cards.reason[card];
    node.id = cards.anchor[card];
    node.classList.add(why === null ? "kept" : "dropped");
    const size = ["width", "height"].map((name) => shown.getAttribute(name));
    set(part("svg"), { viewBox: `0 0 ${size.join(" ")}`, "aria-label": `Photo ${cards.image[card]}${phrase ? `: ${phrase}` : ""}` });
    set(part("use"), { href: `#${shown.id}` });
    if (cards.mask[card]) set(part(".mask"), { d: cards.mask[card] });
    else part(".mask").remove();
    for (const rect of node.querySelectorAll(".box")) {
      const box = cards.box[card];
      if (box) set(rect, { x: box[0], y: box[1], width: box[2], height: box[3] });
      else rect.remove();
    }
    if (why === null) part(".verdict").remove();
    else part(".verdict").textContent = reasons[why] + (cards.detail[card] ? ` – ${cards.detail[card]}` : "");
    if (phrase) part(".phrase").textContent = phrase;
    else part(".phrase").remove();
    const caption = part(".caption");
    caption.append(cards.before[card]);
    if (phrase) caption.appendChild(document.createElement("mark")).textContent = phrase;
    caption.append(cards.after[card]);
    for (const [name, label, text] of measures) {
      if (cards[name][card] === null) continue;
      const line = part("dl").appendChild(document.createElement("div"));
      line.appendChild(document.createElement("dt")).textContent = label;
      line.appendChild(document.createElement("dd")).textContent = text(cards[name][card]);
    }
    const [id, image] = node.querySelectorAll("code:not(.verdict code)");
    id.textContent = cards.id[card];
    part("a").setAttribute("href", `#${encodeURIComponent(node.id)}`);
    image.textContent = cards.image[card];
    return node;
  };

  // What is shown: the cards that fit, in order, in chunks that are filled near the eyes and emptied far from them.
  let fitting = [];
  let open = false;
  let target = null;
  let height = 0;
  const fill = (chunk) => {
    if (chunk.childElementCount) return;
    const first = Number(chunk.dataset.first);
    chunk.append(...fitting.slice(first, first + CHUNK).map(make));
    chunk.style.height = "";
    if (target && chunk.contains(document.getElementById(target))) document.getElementById(target).classList.add("target");
  };
  const empty = (chunk) => {
    if (!chunk.childElementCount || chunk.contains(document.activeElement)) return;
    chunk.style.height = `${chunk.offsetHeight}px`;
    chunk.replaceChildren();
  };
  const eyes = new IntersectionObserver(
    (seen) => seen.forEach((entry) => (entry.isIntersecting ? fill(entry.target) : empty(entry.target))),
    { rootMargin: NEAR },
  );
  const lay = () => {
    eyes.disconnect();
    const made = [];
    for (let first = 0; first < fitting.length && (open || first === 0); first += CHUNK) {
      const chunk = document.createElement("div");
      chunk.className = "cards";
      chunk.dataset.first = first;
      if (first && height) chunk.style.height = `${(height * Math.min(CHUNK, fitting.length - first)) / CHUNK}px`;
      made.push(chunk);
    }
    if (made.length) fill(made[0]);
    chunks.replaceChildren(...made);
    if (made.length && fitting.length >= CHUNK) height = made[0].offsetHeight;
    if (open) made.forEach((chunk) => eyes.observe(chunk));
    more.hidden = fitting.length <= CHUNK;
    more.textContent = open ? "Show fewer" : `Show all ${whole(fitting.length)}`;
  };

  let searched = null;
  const fits = () => {
    const wanted = words.value.trim().toLowerCase();
    if (wanted) searched ??= cards.anchor.map((_, card) => (cards.before[card] + cards.phrase[card] + cards.after[card]).toLowerCase());
    const least = Number(score.value);
    const why = reason.value === "" ? null : Number(reason.value);
    const found = [];
    for (let card = 0; card < total; card += 1) {
      const dropped = cards.reason[card] !== null;
      if (rows.value !== "both" && dropped !== (rows.value === "dropped")) continue;
      if (why !== null && cards.reason[card] !== why) continue;
      if (least > 0 && !(cards.score[card] >= least - 1e-9)) continue;
      if (wanted && !searched[card].includes(wanted)) continue;
      found.push(card);
    }
    return found;
  };
  const sorted = (found) => {
    const key = order.value;
    if (key === "drawn") return found;
    if (key === "phrase") {
      const text = new Map(found.map((card) => [card, cards.phrase[card].toLowerCase()]));
      return found.sort((a, b) => (text.get(a) < text.get(b) ? -1 : text.get(a) > text.get(b) ? 1 : a - b));
    }
    const value = (card) => cards[key][card] ?? Infinity;
    return found.sort((a, b) => (value(a) === value(b) ? a - b : value(a) - value(b)));
  };
  const show = () => {
    form.querySelector("output").value = Number(score.value).toFixed(2);
    fitting = sorted(fits());
    const all = { kept, dropped: total - kept, both: total }[rows.value];
    find(".shown").textContent = `${whole(fitting.length)} of ${whole(all)}`;
    find(".none").hidden = fitting.length > 0;
    lay();
  };

  form.addEventListener("input", (event) => {
    if (event.target === reason && reason.value !== "" && rows.value === "kept") rows.value = "dropped";
    if (event.target === rows && rows.value === "kept") reason.value = "";
    show();
    // Deep in a long list that has become short, the reader would find himself in another section.
    if (chunks.getBoundingClientRect().top < 0) chunks.scrollIntoView();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    open = !open;
    lay();
    if (!open) gallery.scrollIntoView();
  });

  // A link to a card leads there, whether its card exists yet or not.
  const follow = () => {
    let anchor = location.hash.slice(1);
    try {
      anchor = decodeURIComponent(anchor);
    } catch {
      return;
    }
    document.querySelectorAll(".card.target").forEach((node) => node.classList.remove("target"));
    target = place.has(anchor) ? anchor : null;
    if (target === null) return;
    const card = place.get(anchor);
    if (!fitting.includes(card)) {
      form.reset();
      if (cards.reason[card] !== null) rows.value = "dropped";
      show();
    }
    const chunk = Math.floor(fitting.indexOf(card) / CHUNK);
    if (chunk > 0 && !open) {
      open = true;
      lay();
    }
    [chunk - 1, chunk, chunk + 1].forEach((number) => number >= 0 && chunks.children[number] && fill(chunks.children[number]));
    const node = document.getElementById(anchor);
    node.classList.add("target");
    node.scrollIntoView();
  };
  window.addEventListener("hashchange", follow);

  form.hidden = false;
  show();
  follow();
})();
