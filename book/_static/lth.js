// What the pages can do beside being read. Without JavaScript everything is there, and nothing is hidden.
(() => {
  "use strict";
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const make = (tag, parts = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), parts);
    made.append(...children);
    return made;
  };
  const remember = {
    get: name => { try { return localStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* a private window keeps nothing */ } },
  };

  // A choice, all of whose options stand side by side.
  function choice(label, options, chosen, onChange) {
    const group = make("div", { className: "choice", role: "group", ariaLabel: label }, make("span", {}, label));
    const buttons = options.map(([value, words]) => make("button", { type: "button", textContent: words, value }));
    const choose = value => {
      buttons.forEach(button => button.setAttribute("aria-pressed", button.value === value));
      onChange(value);
    };
    buttons.forEach(button => button.addEventListener("click", () => choose(button.value)));
    group.append(...buttons);
    choose(chosen);
    return group;
  }

  // Code: none of it (to read), the method, or all (to run).
  function code() {
    const cells = all(".bd-article div.cell_input");
    const box = document.querySelector(".bd-article .opening");
    if (!cells.length || !box) return;
    const show = value => {
      document.documentElement.dataset.code = value;
      all(".bd-article details.hide").forEach(fold => { fold.open = value === "all"; });
      remember.set("lth-code", value);
    };
    const options = [["none", "none: to read"], ["method", "the method"], ["all", "all: to run"]];
    const kept = remember.get("lth-code");
    box.after(choice("Code on this page", options, options.some(([value]) => value === kept) ? kept : "method", show));
  }

  // A figure is enlarged by a click.
  function enlarge() {
    const dialog = make("dialog", { className: "enlarged" });
    dialog.addEventListener("click", () => dialog.close());
    addEventListener("keydown", event => { if (event.key === "Escape") dialog.close(); }, true); // the theme takes it else
    document.body.append(dialog);
    all(".bd-article figure img, .bd-article .cell_output img").forEach(image => {
      if (image.closest("a, button, [id^=film-]")) return;
      image.classList.add("enlarges");
      image.addEventListener("click", () => {
        dialog.replaceChildren(make("img", { src: image.src, alt: image.alt }));
        dialog.showModal();
      });
    });
  }

  // The scorecard: rows of one paper, of one chapter, of one verdict, or with some words.
  function filter() {
    const tables = all("table.scorecard").filter(table => table.querySelector("span[id]"));
    if (!tables.length) return;
    const titled = section => section.querySelector("h2").firstChild.textContent.trim();
    const rows = tables.flatMap(table => all("tbody tr", table)).map(row => ({
      row,
      paper: row.querySelector("span[id]").id[0],
      chapter: titled(row.closest("section")),
      verdict: [...row.querySelector(".verdict").classList].find(name => !["verdict", "pre"].includes(name)),
      words: row.textContent.toLowerCase(),
    }));
    const wanted = { paper: "", chapter: "", verdict: "", words: "" };
    const count = make("output");
    const apply = () => {
      let left = 0;
      rows.forEach(({ row, words, ...its }) => {
        const fits = ["paper", "chapter", "verdict"].every(name => !wanted[name] || its[name] === wanted[name])
          && words.includes(wanted.words);
        row.hidden = !fits;
        left += fits;
      });
      tables.forEach(table => {
        const empty = all("tbody tr", table).every(row => row.hidden);
        table.closest("section").hidden = empty;
      });
      count.textContent = `${left} of ${rows.length} claims`;
    };
    const select = (label, name, values) => {
      const list = make("select", {}, make("option", { value: "", textContent: "all" }));
      values.forEach(([value, words]) => list.append(make("option", { value, textContent: words })));
      list.addEventListener("change", () => { wanted[name] = list.value; apply(); });
      return make("label", {}, `${label} `, list);
    };
    const search = make("input", { type: "search", placeholder: "words, or a claim" });
    search.addEventListener("input", () => { wanted.words = search.value.trim().toLowerCase(); apply(); });
    const papers = [["E", "Evci et al."], ["M", "Maene et al."], ["P", "Paul et al."], ["J", "Jaiswal et al."]];
    const verdicts = [...new Set(rows.map(one => one.verdict))].map(name => [name, name.replaceAll("-", " ")]);
    const chapters = [...new Set(rows.map(one => one.chapter))].map(name => [name, name]);
    const box = make("div", { className: "filter" }, select("Paper", "paper", papers),
      select("Chapter", "chapter", chapters), select("Verdict", "verdict", verdicts), make("label", {}, "With ", search), count);
    tables[0].closest("section").before(box);
    apply();
    // a link to a claim shows it, whatever is filtered
    const reveal = () => {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      const row = target?.closest("tr");
      if (!row) return;
      row.hidden = false;
      row.closest("section").hidden = false;
      all("tr.shown").forEach(other => other.classList.remove("shown"));
      row.classList.add("shown");
      row.scrollIntoView({ block: "center" });
    };
    addEventListener("hashchange", reveal);
    reveal();
  }

  // The contents tell which section is read, from the first to the last: the theme's own lose the short ones at the end.
  function contents() {
    const links = all("#pst-page-toc-nav a.nav-link").map(link => [link, document.getElementById(link.hash.slice(1))]);
    if (!links.length) return;
    const mark = () => {
      const above = links.filter(([, place]) => place && place.getBoundingClientRect().top < innerHeight / 4);
      const [current] = above.at(-1) ?? links[0];
      links.forEach(([link]) => link.classList.toggle("here", link === current));
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
  }

  // A table that is wider than the page fades at its right end until that is reached.
  function tables() {
    const marks = all(".pst-scrollable-table-container").map(box => {
      const mark = () => box.classList.toggle("goes-on", box.scrollWidth - box.clientWidth - box.scrollLeft > 4);
      box.addEventListener("scroll", mark, { passive: true });
      return mark;
    });
    const every = () => marks.forEach(mark => mark());
    addEventListener("resize", every, { passive: true });
    every();
  }

  const start = () => { code(); enlarge(); filter(); contents(); tables(); };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
