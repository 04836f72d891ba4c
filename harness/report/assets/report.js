// @ts-check
"use strict";

/**
 * @typedef {{title: string, values: (number | null)[], texts: string[], low: (number | null)[], high: (number | null)[]}} Axis
 * @typedef {{x: Axis, y: Axis, front: boolean[] | null, lines: number[][], labels: (string | null)[]}} Chart
 * front: rows that compete for the Pareto front, null without one; lines: rows joined in order; labels: what stands beside a mark
 * @typedef {{x: number, y: number}} Point
 */

/** Made by `report_document` in page.py. @type {any} */
const data = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("data")).textContent || "");

/**
 * @param {string} label @param {[string | number, string][]} options
 * @param {string | number} chosen @param {(value: string) => void} change
 */
const choice = (label, options, chosen, change) =>
  make("label", {}, label, make("select", { "aria-label": label, change: event => change(event.target.value) },
    ...options.map(([value, text]) => make("option", { value, selected: String(value) === String(chosen) }, text))));

/** @param {string} id @param {string} title @param {...(Node | string | null)} content */
const section = (id, title, ...content) =>
  make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), ...content);

// Plots

/** A column of the results. @param {string} key @returns {Axis} */
function axisOf(key) {
  const [{ columns, rows }] = data.tables;
  const cells = name => {
    const at = columns.findIndex(column => column.key === name);
    return rows.map(row => row[at] || { value: null });
  };
  const values = name => cells(name).map(({ value }) => (Math.abs(Number(value)) > 1e300 ? null : value)); // no place for the infinite
  const { header } = columns.find(column => column.key === key);
  const texts = cells(key).map(cell => cell.shown.join(" "));
  return { title: header, values: values(key), texts, low: values(`${key}_low`), high: values(`${key}_high`) };
}

/**
 * Values to pixels, logarithmic where the largest is 8 times the smallest.
 * @param {number[]} values @param {number} from @param {number} to
 */
function scaleOf(values, from, to) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const log = least > 0 && most / least > 8;
  const into = value => (log ? Math.log10(value) : value);
  const margin = (into(most) - into(least)) * 0.08 || Math.abs(into(most)) * 0.1 || 1;
  const [low, high] = [into(least) - margin, into(most) + margin];
  const size = 10 ** Math.floor(Math.log10((high - low) / 5));
  const step = size * ([1, 2, 5].find(factor => (high - low) / (factor * size) <= 6) || 10);
  const even = Array.from({ length: 8 }, (_, place) => (Math.ceil(low / step) + place) * step);
  const decades = Array.from({ length: 24 }, (_, place) => Math.floor(low) + Math.floor(place / 3) + Math.log10([1, 2, 5][place % 3]));
  const ticks = (log && high - low < 7 ? decades : even).filter(tick => tick >= low && tick <= high);
  const few = log && ticks.length > 9 ? ticks.filter(Number.isInteger) : ticks;
  return { at: value => from + ((into(value) - low) / (high - low)) * (to - from), ticks: few.map(tick => (log ? 10 ** tick : tick)) };
}

/**
 * Where a text of a mark at (x, y) stands free of those taken; null where nowhere.
 * @param {number[]} place @param {number} long @param {number[][]} taken @param {number[]} room
 */
function freeSpot([x, y], long, taken, [width, height]) {
  const spots = [10, -10 - long].flatMap(dx => [4, -10, 18].map(dy => [x + dx, y + dy, x + dx + long]));
  const inside = (/** @type {number[]} */ [left, base, right]) => left > 64 && right < width && base > 12 && base < height;
  const clear = (/** @type {number[]} */ [left, base, right]) => !taken.some(([l, t, r, b]) => left < r && right > l && base - 11 < b && base + 3 > t);
  return spots.find(spot => inside(spot) && clear(spot));
}

/**
 * A section with a plot and the fields that choose what is drawn, drawn again where its width changes.
 * @param {string} id @param {string} title @param {string} text
 * @param {Record<string, [string, string][]>} fields name -> options, the first of them chosen
 * @param {(chosen: Record<string, string>) => Chart} chart
 */
function plotSection(id, title, text, fields, chart) {
  const chosen = Object.fromEntries(Object.entries(fields).map(([name, options]) => [name, options[0][0]]));
  const host = make("div", { class: "plot" });
  const readout = make("p", { class: "readout quiet" });
  const draw = () => {
    const { x, y, front, lines, labels } = chart(chosen);
    const [width, height] = [host.clientWidth, Math.min(460, Math.max(300, host.clientWidth * 0.5))];
    const marks = data.points.map((point, row) => ({
      row, name: point.name, apart: front && !front[row], at: [0, 0],
      x: x.values[row], y: y.values[row], low: y.low[row], high: y.high[row],
    })).filter(mark => mark.x !== null && mark.y !== null);
    readout.textContent = marks.length ? "Point at a mark, or move to it by the Tab key, to read its values." : "No row has both values.";
    if (!width || !marks.length) return host.replaceChildren();
    const across = scaleOf(marks.map(mark => mark.x), 64, width - 16);
    const up = scaleOf(marks.flatMap(mark => [mark.y, mark.low ?? mark.y, mark.high ?? mark.y]), height - 56, 12);
    for (const mark of marks) mark.at = [across.at(mark.x), up.at(mark.y)];
    const svg = make("svg:svg", { width, height, role: "group", "aria-label": `${title}: ${y.title} against ${x.title}` });
    const draws = (tag, attributes, /** @type {(string | Node)[]} */ ...content) => svg.append(make(`svg:${tag}`, attributes, ...content));
    const short = value => value.toLocaleString("en", { maximumSignificantDigits: 3 });
    for (const tick of up.ticks) {
      draws("line", { class: "grid", x1: 64, x2: width - 16, y1: up.at(tick), y2: up.at(tick) });
      draws("text", { x: 56, y: up.at(tick) + 4, "text-anchor": "end" }, short(tick));
    }
    for (const tick of across.ticks) draws("text", { x: across.at(tick), y: height - 36, "text-anchor": "middle" }, short(tick));
    draws("text", { x: (width + 48) / 2, y: height - 8, "text-anchor": "middle", class: "title" }, x.title);
    draws("text", { transform: `translate(14 ${(height - 44) / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, y.title);
    const sign = y.title.includes("↑") ? 1 : -1;
    const rivals = front ? marks.filter(mark => !mark.apart).sort((a, b) => a.x - b.x || sign * (b.y - a.y)) : [];
    const best = rivals.filter((mark, at) => rivals.slice(0, at).every(other => sign * (mark.y - other.y) > 0));
    draws("path", { class: "line", d: best.map(({ at }, index) => (index ? `H${at[0]}V${at[1]}` : `M${at}`)).join("") });
    for (const line of lines) {
      const joined = marks.filter(mark => line.includes(mark.row)).sort((a, b) => a.x - b.x);
      draws("path", { class: "line", d: joined.map(({ at }, index) => `${index ? "L" : "M"}${at}`).join("") });
    }
    const taken = marks.map(({ at: [cx, cy] }) => [cx - 6, cy - 6, cx + 6, cy + 6]);
    for (const { row, name, apart, low, high, at } of marks) {
      const why = apart ? "; of another rate, exact, or its time was disturbed: not ranked" : "";
      const told = `${name}: ${y.title} ${y.texts[row]}, ${x.title} ${x.texts[row]}${why}`;
      const read = () => { readout.textContent = told; };
      const circle = (r, look) => make("svg:circle", { cx: at[0], cy: at[1], r, class: look });
      const bar = low !== null && high !== null ? [make("svg:line", { x1: at[0], x2: at[0], y1: up.at(low), y2: up.at(high) })] : [];
      const heard = { tabindex: 0, role: "img", "aria-label": told, focus: read, pointerenter: read, click: read };
      draws("g", { class: apart ? "mark apart" : "mark", ...heard }, ...bar, circle(14, "target"), circle(5, "dot"));
      const label = labels[row];
      const spot = label && freeSpot(at, label.length * 6.8, taken, [width, height - 56]);
      if (!spot) continue;
      taken.push([spot[0], spot[1] - 11, spot[2], spot[1] + 3]);
      draws("text", { x: spot[0], y: spot[1], class: "name" }, label);
    }
    host.replaceChildren(svg);
  };
  new ResizeObserver(draw).observe(host);
  const controls = Object.entries(fields).map(([name, options]) =>
    choice(name, options, chosen[name], value => { chosen[name] = value; draw(); }));
  return section(id, title, make("p", {}, text), make("div", { class: "controls" }, ...controls), readout, host);
}

/** Quality against cost, and figures over K and N where a decoder is there with several. */
function plots() {
  const quality = [...data.quality].sort((one, other) => Number(other === "lpips") - Number(one === "lpips"));
  const options = keys => keys.map(key => /** @type {[string, string]} */ ([key, axisOf(key).title]));
  const of = name => data.points.map(point => point[name]);
  const found = [];
  if (quality.length && data.cost.length) {
    found.push(plotSection("cost", "Quality against cost",
      "The line joins the filled marks that no other filled one beats in both figures; hollow ones are not ranked: of another rate, " +
        "exact, or timed beside other work. Bars are 95 % intervals of each row alone; the paired differences are above.",
      { Quality: options(quality), Cost: options(data.cost) },
      ({ Quality, Cost }) => {
        const front = data.points.map(point => Cost.includes("bits") || (point.ranked && !(point.disturbed && Cost.startsWith("ms_"))));
        return { x: axisOf(Cost), y: axisOf(Quality), front, lines: [], labels: of("name") };
      }));
  }
  /** Rows of one decoder that differ in K or N alone. @param {string} name @param {string} other @returns {number[][]} */
  const series = (name, other) => {
    const groups = data.points.map(one =>
      data.points.flatMap((two, row) => (one.family === two.family && one[other] === two[other] ? [row] : [])));
    return groups.filter((rows, at) => rows[0] === at && new Set(rows.map(row => data.points[row][name])).size > 1);
  };
  const ways = [
    ["K", "N", "K, scales: resolutions that decoding passes through"],
    ["N", "K", "N, steps: network calls an image over all scales (NFE)"],
  ].filter(([name, other]) => series(name, other).length);
  if (quality.length && ways.length) {
    found.push(plotSection("scales", "Over scales and steps",
      "Lines join rows of one decoder that differ in the number shown alone. A decoder of K scales goes from a coarse image to the " +
        "full one through K resolutions; N counts its network calls an image over all of them.",
      { Figure: options([...quality, ...data.cost]), Over: ways.map(([name, , title]) => [name, title]) },
      ({ Figure, Over }) => {
        const [[name, other, title]] = ways.filter(([one]) => one === Over);
        const lines = series(name, other);
        const ends = lines.map(rows => rows.reduce((one, two) => (of(name)[two] > of(name)[one] ? two : one)));
        const labels = data.points.map((point, row) =>
          (ends.includes(row) ? `${point.family}, ${other} = ${point[other]}` : lines.flat().includes(row) ? null : point.name));
        const values = data.points.map(point => (point.N ? point[name] : null));
        const x = { title, values, texts: of(name).map(String), low: [], high: [] };
        return { x, y: axisOf(Figure), front: null, lines, labels };
      }));
  }
  return found;
}

// Images

/** @param {any} images of `image_document` in tiles.py */
function browser(images) {
  const [row, most] = [Math.min(1, images.rows.length - 1), Math.min(images.each, images.n)];
  const metric = Math.max(0, images.metrics.findIndex(({ title }) => title.startsWith("LPIPS")));
  const view = { view: "slider", gain: 8, split: 50, zoom: 1, x: 0, y: 0 };
  const state = { metric, row, list: "worst", image: 0, sides: [-1, row], ...view };
  let frames = /** @type {any[]} */ ([]);
  const name = at => (at < 0 ? "original" : images.rows[at]);
  const tile = at => images.tiles[state.image][at + 1];
  const picture = at =>
    make("img", { src: tile(at), alt: `${images.keys[state.image]}, ${name(at)}`, class: "moving", draggable: "false" });
  const pressed = (group, chosen) => [...group.children].forEach((one, at) => one.setAttribute("aria-pressed", String(at === chosen)));

  const move = (dx, dy) => { // in shares of a frame
    [state.x, state.y] = [state.x + dx, state.y + dy].map(value => Math.min(0, Math.max(1 - state.zoom, value)));
    for (const frame of frames) {
      frame.classList.toggle("zoomed", state.zoom > 1);
      const place = `translate(${100 * state.x}%, ${100 * state.y}%) scale(${state.zoom})`;
      for (const one of frame.querySelectorAll(".moving")) one.style.transform = place;
    }
  };
  const zoomAt = (factor, { x, y } = { x: 0.5, y: 0.5 }) => { // the point that stays, in shares of a frame
    const zoom = Math.min(16, Math.max(1, state.zoom * factor));
    [state.x, state.y] = [x - ((x - state.x) * zoom) / state.zoom, y - ((y - state.y) * zoom) / state.zoom];
    state.zoom = zoom;
    move(0, 0);
  };
  /** @type {Record<string, () => void>} */
  const keys = {
    "+": () => zoomAt(1.5), "=": () => zoomAt(1.5), "-": () => zoomAt(1 / 1.5), 0: () => zoomAt(0),
    ArrowLeft: () => move(0.1, 0), ArrowRight: () => move(-0.1, 0), ArrowUp: () => move(0, 0.1), ArrowDown: () => move(0, -0.1),
  };

  /** A frame that zooms and moves with all others. @param {string} label @param {...Node} content */
  const makeFrame = (label, ...content) => {
    const down = /** @type {Map<number, Point>} */ (new Map());
    const place = event => {
      const box = frame.getBoundingClientRect();
      return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
    };
    const release = event => down.delete(event.pointerId);
    const frame = make("div", {
      class: "frame", tabindex: 0, role: "group", "aria-label": `${label}: plus and minus zoom, arrows move, 0 resets`,
      keydown: event => {
        if (event.ctrlKey || event.metaKey || !keys[event.key]) return;
        event.preventDefault();
        keys[event.key]();
      },
      wheel: event => {
        if (!event.ctrlKey && frame !== document.activeElement) return; // the page scrolls until a frame is chosen
        event.preventDefault();
        zoomAt(Math.exp(-event.deltaY / 400), place(event));
      },
      pointerdown: event => { down.set(event.pointerId, place(event)); frame.setPointerCapture(event.pointerId); },
      pointermove: event => {
        const [before, now, other] = [down.get(event.pointerId), place(event), [...down].find(([id]) => id !== event.pointerId)?.[1]];
        if (!before) return;
        down.set(event.pointerId, now);
        const apart = point => Math.hypot(point.x - other.x, point.y - other.y);
        if (other) zoomAt(apart(now) / apart(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
        else if (state.zoom > 1) move(now.x - before.x, now.y - before.y);
        else if (state.view === "slider") split(100 * now.x);
      },
      pointerup: release, pointercancel: release,
    }, ...content);
    frames.push(frame);
    return frame;
  };

  const range = { type: "range", min: 0, max: 100, step: 0.5, "aria-label": "Where A ends and B begins" };
  const slider = make("input", { ...range, input: () => split(Number(slider.value)) });
  const split = share => {
    state.split = Math.min(100, Math.max(0, share));
    slider.value = String(state.split);
    stage.querySelectorAll(".over").forEach(over => { over.style.clipPath = `inset(0 0 0 ${state.split}%)`; });
    stage.querySelectorAll(".seam").forEach(seam => { seam.style.left = `${state.split}%`; });
  };

  /** The difference to the original, times the gain. @param {number} at */
  const difference = at => {
    const canvas = make("canvas", { class: "moving", role: "img", "aria-label": `difference of ${name(at)} to the original` });
    const sources = [tile(-1), tile(at)].map(src => Object.assign(new Image(), { src }));
    Promise.all(sources.map(one => one.decode())).then(() => {
      [canvas.width, canvas.height] = [sources[0].naturalWidth, sources[0].naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const [one, other] = sources.map(source => {
        context.drawImage(source, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      });
      one.data.forEach((value, place) => {
        if (place % 4 < 3) one.data[place] = state.gain * Math.abs(value - other.data[place]);
      });
      context.putImageData(one, 0, 0);
    });
    return canvas;
  };

  /** @param {number} at @param {Node | string} frame @param {string} [before] */
  const captioned = (at, frame, before = "") => {
    const figures = images.metrics.filter(({ rows }) => at >= 0 && rows[at]).map(({ title, rows }) =>
      make("small", {}, `${title} ${rows[at].texts[state.image]}, rank ${rows[at].ranks[state.image]}`));
    return make("figure", {}, frame, make("figcaption", {}, make("span", {}, before, make("b", {}, name(at)), ...figures)));
  };
  const decoders = () => [...new Set(state.sides)].filter(at => at >= 0);
  /** @type {Record<string, () => Node[]>} */
  const panels = {
    slider: () => {
      const [under, over] = state.sides.map(picture);
      const frame = makeFrame(state.sides.map(name).join(" and "), under, make("div", { class: "over" }, over), make("div", { class: "seam" }));
      return [make("div", {}, frame, slider, make("div", { class: "pair" }, ...state.sides.map(at => captioned(at, ""))))];
    },
    side: () => [...new Set([-1, ...state.sides])].map(at => captioned(at, makeFrame(name(at), picture(at)))),
    difference: () => decoders().map(at =>
      captioned(at, makeFrame(`difference of ${name(at)}`, difference(at)), `|original − decoder| × ${state.gain}: `)),
  };
  /** Latents and ends of scales. @param {number} at */
  const onTheWay = at => {
    const { latents, scales, reason } = images.redone[at];
    const strip = (title, parts) => {
      const pictures = parts.map(src => make("img", { src, alt: "" }));
      return make("figure", {}, make("figcaption", {}, title), make("div", { class: "strip" }, ...pictures));
    };
    const absent = make("p", { class: "quiet" }, `Latents and scales: ${reason}.`);
    const ends = "Coarse to fine: the end of each scale, with the noise that its flow has there";
    return make("div", {}, make("h3", {}, name(at)),
      latents ? strip("Latents: three principal components as red, green, blue", [latents[state.image]]) : absent,
      scales ? strip(ends, [...scales[state.image], tile(at)]) : null);
  };

  const stage = make("div");
  const below = make("div", { class: "below" });
  const thumbs = make("div", { class: "thumbs", role: "group", "aria-label": "Images of the list" });
  const status = make("p", { class: "quiet small", role: "status" });
  const gains = { type: "range", min: 1, max: 32, value: state.gain };
  const gain = make("label", {}, "Gain", make("input", { ...gains, input: event => { state.gain = Number(event.target.value); show(); } }));
  let listed = /** @type {number[]} */ ([]);
  const list = () => {
    const { title, rows: { [state.row]: own } } = images.metrics[state.metric];
    const drawn = state.list === "random" || !own;
    const places = drawn ? [] : own.ranks.map(rank => (state.list === "worst" ? rank : images.n + 1 - rank));
    const ranked = [...places.keys()].filter(at => places[at] <= images.each).sort((one, other) => places[one] - places[other]);
    listed = drawn ? images.drawn : ranked;
    const some = listed.length < most ? `${listed.length} of the` : "The";
    status.textContent = drawn
      ? `${listed.length} of ${images.n} images drawn at random${own ? "" : `; ${name(state.row)} has no ${title}`}.`
      : `${some} ${most} ${state.list} of ${images.n} images by ${title} of ${name(state.row)}.`;
    thumbs.replaceChildren(...listed.map(image => make("button", { type: "button", click: () => { state.image = image; show(); } },
      make("img", { src: images.tiles[image][0], alt: images.keys[image] }), make("small", {}, own ? own.texts[image] : " "))));
    [state.image] = listed;
    show();
  };
  const show = () => {
    frames = [];
    gain.hidden = state.view !== "difference";
    stage.className = `stage ${state.view}`;
    stage.replaceChildren(...panels[state.view]());
    if (!frames.length) stage.append("Choose a decoder as A or B.");
    const whole = Object.assign(new Image(), { src: tile(-1) });
    const shown = frames;
    whole.decode().then(() => {
      for (const frame of shown) frame.style.aspectRatio = `${whole.naturalWidth} / ${whole.naturalHeight}`;
    });
    pressed(thumbs, listed.indexOf(state.image));
    below.replaceChildren(...decoders().map(onTheWay));
    split(state.split);
    move(0, 0);
  };

  const rows = images.rows.map((label, at) => [at, label]);
  const sides = ["A", "B"].map((label, side) =>
    choice(label, [[-1, "original"], ...rows], state.sides[side], value => { state.sides[side] = Number(value); show(); }));
  const names = Object.keys(panels);
  const buttons = ["Slider", "Side by side", "Difference"].map((text, at) =>
    make("button", { type: "button", click: () => { state.view = names[at]; pressed(views, at); show(); } }, text));
  const views = make("div", { class: "buttons", role: "group", "aria-label": "View" }, ...buttons);
  pressed(views, 0);
  list();
  const all = images.keys.length === images.n;
  const chosen = `: ${images.drawn.length} drawn at random, and the worst and the best by every metric and decoder in turn`;
  return [
    make("p", {}, `${all ? "All" : `${images.keys.length} of`} ${images.n} images are in this page${all ? "" : chosen}. ` +
      `They are lossy here (JPEG, quality ${images.quality}); the figures are of the exact ones. Rank 1 is the worst.`),
    make("div", { class: "controls" },
      choice("Show the", ["worst", "best", "random"].map(one => [one, one]), state.list, value => { state.list = value; list(); }),
      choice("by", images.metrics.map(({ title }, at) => [at, title]), state.metric, value => { state.metric = Number(value); list(); }),
      choice("of", rows, state.row, value => { state.row = state.sides[1] = Number(value); sides[1].querySelector("select").value = value; list(); })),
    status, thumbs,
    make("div", { class: "controls" }, ...sides, views, gain),
    make("p", { class: "quiet small" }, "Click an image or move to it by Tab; then wheel, pinch, + and − zoom, dragging and arrows move, 0 resets; all images move together."),
    make("div", { class: "viewer" }, stage, below),
  ];
}

const sections = [
  section("results", "Results", ...data.tables.map(makeTable)),
  ...plots(),
  section("images", "Images", ...(data.images.reason ? [make("p", {}, data.images.reason)] : browser(data.images))),
  section("provenance", "Environment and provenance",
    ...data.provenance.map(makeTable),
    make("p", { class: "quiet" }, `Made by ${data.made}. The file is whole: it fetches nothing.`)),
];

/** @type {HTMLElement} */ (document.getElementById("page")).append(
  make("header", {},
    make("h1", {}, data.about),
    make("p", { class: "verdict" }, ...data.verdict.map((text, at) => (at % 2 ? make("b", {}, text) : text))),
    data.warnings.length ? make("ul", { class: "notes", "aria-label": "Warnings" }, ...data.warnings.map(line => make("li", {}, line))) : null,
    make("nav", { "aria-label": "Sections" }, ...sections.map(one => make("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)))),
  ...sections);
