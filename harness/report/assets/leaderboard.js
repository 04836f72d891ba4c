// @ts-check

(() => {
  const board = JSON.parse(document.getElementById("data")?.textContent ?? "");
  const plain = (/** @type {any} */ table) => {
    const figure = makeTable(table);
    figure.querySelector(".filter")?.remove(); // one field filters all measured rows
    return figure;
  };
  const figures = board.tables.map((/** @type {any} */ { table, rows }) => {
    const figure = plain(table);
    const lines = [...figure.querySelectorAll("tbody tr")].map((element, at) => {
      const words = (element.textContent ?? "").toLowerCase();
      const head = element.children[0];
      head.append(make("a", { href: `#record-${rows[at].record}` }, ...head.childNodes));
      return { ...rows[at], element, words };
    });
    return { figure, lines };
  });
  const lines = /** @type {any[]} */ (figures.flatMap((/** @type {any} */ one) => one.lines));

  const count = make("span", { class: "quiet", role: "status" });
  const choices = ["protocol", "rate", "device"].map((key) => {
    const values = [...new Set(lines.map((line) => line[key]))].sort();
    return { key, select: make("select", { change: show }, ...["", ...values].map((value) => make("option", { value }, value || "all"))) };
  });
  const field = make("input", { type: "search", input: show });
  function show() {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const { element, ...line } of lines) {
      const chosen = choices.every(({ key, select }) => !select.value || line[key] === select.value);
      element.hidden = !chosen || !words.every((/** @type {string} */ word) => line.words.includes(word));
    }
    for (const one of figures) one.figure.hidden = one.lines.every((/** @type {any} */ line) => line.element.hidden);
    count.textContent = `${lines.filter((line) => !line.element.hidden).length} of ${lines.length} rows`;
  }

  document.getElementById("page")?.append(
    make("h1", {}, "msbench leaderboard"),
    make("p", {}, "Figures are as their records state them. Rows of one table were measured under one protocol, on the same pixels; tables are not ranked against one another."),
    make("div", { class: "controls" }, ...choices.map(({ key, select }) => make("label", {}, key, select)), make("label", {}, "text", field), count),
    make("h2", {}, "Measured"), ...figures.map((/** @type {any} */ one) => one.figure),
    make("h2", {}, "Published, not measured here"), makeTable(board.published),
    ...(board.unread ? [make("h2", {}, "Not shown"), makeTable(board.unread)] : []),
    make("h2", {}, "Where the rows come from"),
    ...board.records.map((/** @type {any[]} */ [own, decoders, rest], /** @type {number} */ number) =>
      make("section", { id: `record-${number}` }, plain(own), plain(decoders), make("details", {}, make("summary", {}, rest.title), plain(rest)))));
  show();
})();
