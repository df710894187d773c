// Tables that sort and filter, with nothing from outside: a click or Enter on a heading sorts, a second one turns the order round.
(() => {
  const text = row => row.textContent.toLowerCase();
  const key = cell => {  // numbers as numbers (1,234 +0.05 12 %), empty cells last
    const s = (cell?.textContent ?? '').trim(), n = parseFloat(s.replace(/,(?=\d{3})/g, '').replace('−', '-'));
    return s === '' ? null : /^[+−-]?[\d.]/.test(s) && !isNaN(n) ? n : s.toLowerCase();
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === 'number' ? -1 : 1;

  function sort(table, heading, column) {
    const down = heading.getAttribute('aria-sort') === 'ascending', body = table.tBodies[0];
    const rows = [...body.rows].map(row => [key(row.cells[column]), row]);
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b));
    for (const other of heading.parentNode.cells) other.removeAttribute('aria-sort');
    heading.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    body.append(...rows.map(([, row]) => row));
  }

  function sortable(table) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...heading.childNodes);
      if (!button.textContent.trim()) button.setAttribute('aria-label', 'sort');
      button.addEventListener('click', () => sort(table, heading, column));
      heading.append(button);
    });
  }

  function filterable(table, box) {
    const input = document.createElement('input'), said = document.createElement('span');
    input.type = 'search';
    input.placeholder = 'filter rows';
    input.setAttribute('aria-label', 'show only rows that contain');
    said.setAttribute('role', 'status');
    input.addEventListener('input', () => {
      const words = input.value.toLowerCase().split(/\s+/), rows = [...table.tBodies[0].rows];
      for (const row of rows) row.hidden = !words.every(word => text(row).includes(word));
      said.textContent = input.value ? `${rows.filter(row => !row.hidden).length} of ${rows.length} rows` : '';
    });
    const line = document.createElement('div');
    line.className = 'table-filter';
    line.append(input, said);
    box.before(line);
  }

  document.addEventListener('DOMContentLoaded', () => {
    for (const table of document.querySelectorAll('table.dataframe, table.confusion')) {
      const box = document.createElement('div');  // wide tables scroll within it, by keyboard too
      box.className = 'table-box';
      table.before(box);
      box.append(table);
      if (table.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute('role', 'region');
        box.setAttribute('aria-label', 'table, scrolls sideways');
      }
      if (!table.matches('.dataframe') || !table.tHead || table.tHead.rows.length !== 1) continue;
      if (table.tBodies[0]?.rows.length > 2) sortable(table);
      if (table.tBodies[0]?.rows.length > 9) filterable(table, box);
    }
  });
})();
