// @ts-check
"use strict";

/**
 * @typedef {{value: number | string | null, shown: string[], bold: boolean}} Cell
 * @typedef {{header: string, key: string, numeric: boolean, code: boolean, wrap: boolean}} Column a column without a header is data alone
 * @typedef {{title: string, notes: string[], columns: Column[], rows: Cell[][]}} TableData see `table_document` of page.py
 */

/**
 * An element: attributes that are functions listen, other children than elements become text.
 * @param {string} name tag, for SVG with "svg:" before it
 * @param {Record<string, unknown>} [attributes] those that are null or false are left out
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
function make(name, attributes = {}, ...children) {
  const [space, tag] = name.startsWith("svg:") ? ["http://www.w3.org/2000/svg", name.slice(4)] : ["http://www.w3.org/1999/xhtml", name];
  const element = document.createElementNS(space, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, /** @type {EventListener} */ (value));
    else if (value !== null && value !== false) element.setAttribute(key, String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** @param {Cell} cell @param {boolean} code @returns {Node[]} its text, what stands below it smaller */
function cellContent(cell, code) {
  const [first, ...rest] = cell.shown;
  return [make(code ? "code" : "span", { class: cell.bold ? "best" : null }, first), ...(rest.length ? [make("small", {}, rest.join(" "))] : [])];
}

/**
 * A table whose columns sort by value, missing last, and whose rows a field filters by words; sorting a third time gives back
 * the order it came in.
 * @param {TableData} table
 * @returns {HTMLElement}
 */
function makeTable(table) {
  const shown = table.columns.map((column, place) => ({ ...column, place })).filter((column) => column.header);
  /** @param {Column & {place: number}} column @returns {string | null} class of its cells */
  const look = ({ numeric, wrap, place }) =>
    numeric ? "number" : wrap && table.rows.some((cells) => cells[place].shown.join(" ").length > 32) ? "long" : null;
  const rows = table.rows.map((cells, order) => {
    const row = make("tr", {}, ...shown.map((column, at) =>
      make(at ? "td" : "th", { scope: at ? null : "row", class: look(column) }, ...cellContent(cells[column.place], column.code))));
    return { cells, order, row, words: shown.map((column) => cells[column.place].shown.join(" ")).join(" ").toLowerCase() };
  });
  const body = make("tbody", {}, ...rows.map((one) => one.row));
  let [sorted, sign] = [-1, 0];

  /** @param {number} at */
  const sortBy = (at) => {
    const { place, header } = shown[at];
    const first = header.includes("↑") ? -1 : 1; // the best first
    sign = sorted !== at || !sign ? first : sign === first ? -first : 0;
    sorted = at;
    rows.sort((one, other) => {
      const [a, b] = [one.cells[place].value, other.cells[place].value];
      if (!sign || a === b) return one.order - other.order;
      if (a === null || b === null) return a === null ? 1 : -1;
      const rising = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
      return sign * rising || one.order - other.order;
    });
    body.append(...rows.map((one) => one.row));
    heads.forEach((head, index) => {
      if (index === at && sign) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  const heads = shown.map((column, at) =>
    make("th", { scope: "col", class: look(column) }, make("button", { type: "button", click: () => sortBy(at) }, column.header)));

  const count = make("span", { class: "quiet", role: "status" });
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/);
    let visible = 0;
    for (const { row, words: text } of rows) {
      row.hidden = !words.every((/** @type {string} */ word) => text.includes(word));
      visible += Number(!row.hidden);
    }
    count.textContent = field.value.trim() ? `${visible} of ${rows.length} rows` : "";
  };
  const name = table.title || "Table";
  const field = make("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter rows: ${name}`, input: filter });
  return make("figure", { class: "table" },
    make("figcaption", {}, make("h3", {}, table.title), rows.length > 2 ? make("span", { class: "filter" }, count, field) : null),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name },
      make("table", { "aria-label": name }, make("thead", {}, make("tr", {}, ...heads)), body)),
    table.notes.length ? make("ul", { class: "notes" }, ...table.notes.map((note) => make("li", {}, note))) : null);
}
