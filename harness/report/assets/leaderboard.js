// @ts-check
"use strict";

/**
 * @typedef {{record: number, device: string, rate: string}} Facts of a row
 * @typedef {{table: any, protocol: string, rows: Facts[]}} Ranked a table of one protocol
 * @typedef {{tables: Ranked[], records: {place: string, facts: [string, string][]}[], published: any, unread: any}} Board
 */

(() => {
  /** @type {Board} */
  const board = JSON.parse(document.getElementById("data")?.textContent ?? "");
  const figures = board.tables.map(({ table, protocol, rows }) => {
    const figure = makeTable(table);
    figure.querySelector(".filter")?.remove(); // one field filters all tables
    const lines = [...figure.querySelectorAll("tbody tr")].map((element, at) => {
      const head = element.firstElementChild;
      const link = make("a", { href: `#record-${rows[at].record}` });
      link.append(...(head?.childNodes ?? []));
      head?.append(link);
      return { element, protocol, ...rows[at], words: (element.textContent ?? "").toLowerCase() };
    });
    return { figure, lines };
  });
  const lines = figures.flatMap((one) => one.lines);

  const count = make("span", { class: "quiet", role: "status" });
  /** @param {"protocol" | "device" | "rate"} key @param {string} name */
  const choice = (key, name) => {
    const values = [...new Set(lines.map((line) => line[key]))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const select = make("select", { change: show }, make("option", { value: "" }, "all"),
      ...values.map((value) => make("option", { value }, value)));
    return { key, select, label: make("label", {}, name, select) };
  };
  const choices = [choice("protocol", "Protocol"), choice("rate", "Rate"), choice("device", "Device")];
  const field = make("input", { type: "search", input: show });
  function show() {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const line of lines) {
      const chosen = choices.every(({ key, select }) => !select.value || line[key] === select.value);
      /** @type {HTMLElement} */ (line.element).hidden = !(chosen && words.every((/** @type {string} */ word) => line.words.includes(word)));
    }
    for (const one of figures) one.figure.hidden = one.lines.every((line) => /** @type {HTMLElement} */ (line.element).hidden);
    const visible = lines.filter((line) => !(/** @type {HTMLElement} */ (line.element).hidden)).length;
    count.textContent = `${visible} of ${lines.length} rows`;
  }

  document.getElementById("page")?.append(
    make("h1", {}, "msbench leaderboard"),
    make("p", {}, "Figures are as their records state them. Rows of one table were measured under one protocol, on the same pixels; tables are not ranked against one another."),
    make("div", { class: "filters" }, ...choices.map((one) => one.label), make("label", {}, "Text", field), count),
    make("h2", {}, "Measured"), ...figures.map((one) => one.figure),
    make("h2", {}, "Published, not measured here"), makeTable(board.published),
    ...(board.unread ? [make("h2", {}, "Not shown"), makeTable(board.unread)] : []),
    make("h2", {}, "Where the rows come from"),
    ...board.records.map(({ place, facts }, number) => make("section", { id: `record-${number}`, class: "record" },
      make("h3", {}, place),
      make("dl", {}, ...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])))));
  show();
})();
