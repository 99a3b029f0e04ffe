"""The report's style sheet and its script, kept inside the one file that the report is."""

STYLE = """
:root{--page:#f5f6f8;--surface:#fff;--ink:#1b222c;--quiet:#5b6675;--rule:#dde1e7;--grid:#e8ebef;
--line:#566170;--terminal:#e3e7ec;--terminal-rule:#8b95a3;--node:#2b3442;--node-ink:#fff;
--accent:#0b63b0;--heat:8 72 140;--strong-ink:#fff;--warn:#8a4b00;--warn-page:#fff4e0;--warn-rule:#efc77f;
--s0:#0b63b0;--s1:#c8500f;--s2:#0b8463;--s3:#8a4c8e;--s4:#8f6c00;--s5:#5b6675}
@media screen and (prefers-color-scheme:dark){:root{--page:#12161c;--surface:#1a2029;--ink:#e6eaf0;--quiet:#9ba7b6;
--rule:#2e3743;--grid:#262e39;--line:#93a0b0;--terminal:#2c3541;--terminal-rule:#667386;--node:#d7dee7;
--node-ink:#141a22;--accent:#6fb4f2;--heat:80 150 220;--strong-ink:#0d1319;--warn:#f5c777;--warn-page:#33270f;
--warn-rule:#6b5222;--s0:#6fb4f2;--s1:#f5935c;--s2:#4fcfa5;--s3:#cf98d4;--s4:#e3c04a;--s5:#9ba7b6}}
*{box-sizing:border-box}
html{color-scheme:light dark;scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1120px;padding:2.2rem 1.25rem 4rem;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:.1rem 0 .7rem;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .9rem;letter-spacing:-.01em}
h3{font-size:.95rem;margin:0}
p{margin:.5rem 0;max-width:75ch}
.kicker{margin:0;color:var(--quiet);font-size:.85rem;overflow-wrap:anywhere}
.notice{border:1px solid var(--rule);border-left:4px solid var(--accent);background:var(--surface);
border-radius:6px;padding:.55rem .8rem;margin:.7rem 0;max-width:none;overflow-wrap:anywhere}
.notice.warning{border-color:var(--warn-rule);background:var(--warn-page);color:var(--warn)}
.figures{display:flex;flex-wrap:wrap;gap:1px;margin:1.1rem 0;
background:var(--rule);border:1px solid var(--rule);border-radius:10px;overflow:hidden}
.figures div{flex:1 1 30%;background:var(--surface);padding:.8rem .95rem}
.figures dt{font-size:.78rem;color:var(--quiet)}
.figures dd{margin:.1rem 0 0;font-size:1.45rem;font-weight:600;line-height:1.25;letter-spacing:-.01em;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.figures small{display:block;font-size:.78rem;font-weight:400;letter-spacing:0;color:var(--quiet)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:0 0 1.4rem;font-size:.88rem}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
section{background:var(--surface);border:1px solid var(--rule);border-radius:10px;padding:1.2rem 1.3rem 1.3rem;
margin:0 0 1.2rem;scroll-margin-top:1rem}
.cells{display:grid;gap:1.4rem}.cells figure,.charts figure,.panel{margin:0;min-width:0}
.cells figcaption{font-weight:600;margin-bottom:.3rem}
.cells .scroll{text-align:center}
svg.cell{height:auto;max-width:100%;min-width:520px}
.edge{fill:none;stroke:var(--line);stroke-width:1.1;stroke-linecap:round}
.casing{fill:none;stroke:var(--surface);stroke-width:4}.tip{fill:var(--line)}
.pill{stroke-width:.8}.pill-label{font-size:8px}.terminal{fill:var(--terminal);stroke:var(--terminal-rule);stroke-width:.8}
.terminal-label{font:italic 11px Georgia,"Times New Roman",serif;fill:var(--ink)}.index{font-size:8px}
.node{fill:var(--node);stroke:var(--node);stroke-width:1.1}.node.open{fill:var(--surface)}
.node-label{font-size:9px;font-weight:700;fill:var(--node-ink)}.open.node-label,.node.open-label{fill:var(--node)}
svg.cell text{text-anchor:middle}svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
text.terminal-label{font-family:Georgia,"Times New Roman",serif}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));
gap:1.5rem 1.8rem;align-items:end}
figcaption{font-size:.88rem;font-weight:600;display:flex;flex-wrap:wrap;align-items:baseline;gap:.15rem .9rem}
.unit{font-weight:400;color:var(--quiet)}
.legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.8rem;font-weight:400;color:var(--quiet);margin:0}
.legend span{display:inline-flex;align-items:center;gap:.35rem}
.legend{flex-basis:100%}.legend.wide{margin:.35rem 0 .7rem;max-width:none}
.key{width:24px;height:8px;flex:none}.chip{width:13px;height:10px;border:1px solid;border-radius:5px;flex:none}
.chart{width:100%;height:auto;display:block;margin-top:.35rem}
svg.chart text{font-size:11px;fill:var(--quiet);font-variant-numeric:tabular-nums}
.grid{stroke:var(--grid)}.axis{stroke:var(--terminal-rule)}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1);stroke-dasharray:7 4}.s2{stroke:var(--s2);stroke-dasharray:1.5 4.5}
.s3{stroke:var(--s3);stroke-dasharray:9 3 2 3}.s4{stroke:var(--s4);stroke-dasharray:3 3}
.s5{stroke:var(--s5);stroke-dasharray:12 4}
.dot{stroke-dasharray:none;stroke-width:2;fill:var(--surface)}
.point{fill:var(--s0);fill-opacity:.75}.whisker{stroke:var(--s0);stroke-opacity:.28;stroke-width:1.2}
.k0{fill:var(--s0)}.k1{fill:var(--s1)}.k2{fill:var(--s2)}.k3{fill:var(--s3)}.k4{fill:var(--s4)}.k5{fill:var(--s5)}
.map{max-width:760px}.map circle{fill-opacity:.72}svg.map text{font-size:11px;fill:var(--ink);paint-order:stroke;
stroke:var(--surface);stroke-width:3px}.map .asked{fill:none;stroke:var(--ink);stroke-width:2.5}
svg.map .asked-label{font-size:13px;font-weight:700;text-anchor:middle}
.run .whole{fill:var(--grid)}.run .operation{fill:var(--terminal);stroke:var(--terminal-rule);stroke-width:.8}
.reference{stroke:var(--quiet);stroke-dasharray:2 3}
.band{fill:transparent}.band:hover{fill:var(--quiet);fill-opacity:.14}
.heat{margin-bottom:1.5rem}
.heat-head{display:flex;flex-wrap:wrap;align-items:center;gap:.3rem 1rem;margin-bottom:.5rem}
.when{font-size:.85rem;color:var(--quiet)}.when output{display:inline-block;min-width:2.2em;color:var(--ink);
font-weight:600;font-variant-numeric:tabular-nums}
input[type=range]{flex:1 1 200px;max-width:420px;accent-color:var(--accent);margin:0}
.scroll{overflow-x:auto}
table{border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums}
.p{width:100%;min-width:520px;border-spacing:2px;font-size:.82rem;text-align:center;table-layout:fixed}
.p th{font-weight:500;color:var(--quiet);padding:.2rem .25rem}.p tbody th.kept{color:var(--ink);font-weight:700}
.p td{padding:.22rem .2rem;border-radius:3px;print-color-adjust:exact;-webkit-print-color-adjust:exact;
background:rgb(var(--heat) / calc(.04 + .96*var(--p)))}
.p td.strong{color:var(--strong-ink)}.p td.kept{box-shadow:0 0 0 2px var(--s1);font-weight:700}
.p.confusion{width:auto;min-width:0;table-layout:auto}
.confusion thead th{vertical-align:bottom}.confusion th span{display:inline-block;max-width:11rem;overflow:hidden;
text-overflow:ellipsis;white-space:nowrap;vertical-align:bottom}
.upright thead th span{writing-mode:vertical-rl;transform:rotate(180deg);max-width:none;max-height:9rem}
.confusion tbody th{text-align:right;position:sticky;left:0;background:var(--surface)}
.confusion td{min-width:2.3rem}.confusion td.right{font-weight:700}.confusion td.none{color:var(--quiet)}
.p td.end{background:none;padding-left:.7rem;white-space:nowrap;font-weight:600}
.beside{display:flex;flex-wrap:wrap;gap:1.2rem 3rem;align-items:flex-start;margin-top:1.2rem}
.records{margin:0;min-width:0;max-width:100%}.records td,.records th{padding-right:1.2rem}
.records td{max-width:16rem}.plain .count{text-align:right}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(128px,1fr));gap:1.1rem .9rem}
.samples figure{margin:0;min-width:0}.samples figcaption{font-size:.78rem;font-weight:400;display:block;
margin-top:.3rem;color:var(--quiet);overflow-wrap:anywhere}.samples figcaption span{display:block}
.samples b{color:var(--ink)}
.samples img{display:block;object-fit:contain;image-rendering:pixelated;background:var(--grid);border-radius:4px;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.plain.iou th,.plain.iou td{padding-right:1.4rem;white-space:nowrap}.plain.iou tbody th{color:var(--ink)}
.plain.iou .bar{width:9rem;min-width:5rem;padding-right:.8rem;vertical-align:middle}
.bar i{display:block;height:9px;border-radius:3px;print-color-adjust:exact;-webkit-print-color-adjust:exact;
background:linear-gradient(90deg,rgb(var(--heat)) calc(100%*var(--p)),var(--grid) 0)}
.plain.iou tfoot :is(th,td){border-top:1px solid var(--rule);color:var(--ink);font-weight:600}
.swatch{display:inline-block;width:13px;height:13px;margin-right:.5rem;border:1px solid var(--terminal-rule);
border-radius:3px;vertical-align:-2px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.masks{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:1.2rem 1.8rem}
.masks figure{margin:0;min-width:0}.masks div{display:grid;grid-template-columns:repeat(3,1fr);gap:4px}
.masks figcaption{font-size:.78rem;font-weight:400;display:block;margin-top:.3rem;color:var(--quiet);
overflow-wrap:anywhere}.masks img{display:block;width:100%;height:auto;background:var(--grid);border-radius:4px;
print-color-adjust:exact;-webkit-print-color-adjust:exact}.masks img+img{image-rendering:pixelated}
.scale{display:flex;flex-wrap:wrap;align-items:center;gap:.45rem;font-size:.8rem;color:var(--quiet)}
.scale i{width:120px;height:10px;border-radius:3px;print-color-adjust:exact;-webkit-print-color-adjust:exact;
background:linear-gradient(90deg,rgb(var(--heat) / .04),rgb(var(--heat)))}
.kept-key{width:20px;height:12px;border-radius:3px;box-shadow:0 0 0 2px var(--s1);margin-left:1rem}
.evolution{margin-top:1.4rem}.panels{display:grid;grid-template-columns:repeat(var(--columns,5),minmax(0,1fr));
gap:.8rem .9rem}
.panel svg{width:100%;height:58px;display:block;border-radius:4px;background:var(--grid);
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.panel path{stroke:#1d2530;stroke-opacity:.35;stroke-width:.7;vector-effect:non-scaling-stroke}
.panel.kept svg{outline:2px solid var(--s1);outline-offset:1px}
.panel figcaption{font-size:.78rem;font-weight:400;margin-bottom:.2rem;gap:0 .6rem;color:var(--quiet)}
.panel figcaption b{color:var(--ink)}.panel figcaption span{display:inline-flex;align-items:center;gap:.3rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:1.4rem 1.8rem}
.gallery figure{margin:0;min-width:0}.gallery svg.cell,.step svg.cell{min-width:0;display:block}
.growth{margin-top:1.6rem}.step{margin:.7rem 0 0;display:grid;gap:.6rem 1.8rem;align-items:start;
grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr))}
.step[hidden]{display:none}.step figcaption{grid-column:1/-1}
.moves td,.moves th{padding-right:1rem}.moves .kept td{font-weight:700;color:var(--s1)}
.moves .bar{width:9rem;min-width:5rem;vertical-align:middle}
.code{position:relative}.code pre{padding-right:4.8rem}
pre{margin:.4rem 0;padding:.8rem .95rem;background:var(--page);border:1px solid var(--rule);border-radius:8px;
overflow:auto;max-height:30rem;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
.copy{position:absolute;right:.5rem;top:.45rem;font:inherit;font-size:.8rem;padding:.15rem .6rem;cursor:pointer;
color:var(--ink);background:var(--surface);border:1px solid var(--rule);border-radius:6px}
.copy:hover{border-color:var(--accent)}
.plain{font-size:.87rem}.plain th{text-align:left;font-weight:500;color:var(--quiet);vertical-align:top;
padding:.22rem 1.4rem .22rem 0;white-space:nowrap}.plain td{padding:.22rem 0;overflow-wrap:anywhere}
.hint{color:var(--quiet);font-size:.87rem}
@media (max-width:640px){body{padding:1.2rem .8rem 3rem}section{padding:1rem .9rem}h1{font-size:1.5rem}
.figures div{flex-basis:45%}.figures dd{font-size:1.15rem}
.panels{grid-template-columns:repeat(2,minmax(0,1fr))}.panel{grid-row:auto!important;grid-column:auto!important}}
@media print{body{max-width:none;padding:0;background:#fff;font-size:10.5pt}
nav,.copy,input[type=range]{display:none}
section{border:0;padding:0;margin:0 0 14pt}pre{max-height:none;white-space:pre-wrap}
.charts{grid-template-columns:1fr 1fr}.code pre{font-size:8.5pt;padding-right:.9rem}
figure,.heat,.evolution,.figures div,.code,.notice,h2,h3{break-inside:avoid}
.hint{break-after:avoid}h2,h3{break-after:avoid}
.figures,.figures div,.pill,.chip{print-color-adjust:exact;-webkit-print-color-adjust:exact}
svg.cell{min-width:0}}
"""

SCRIPT = """
"use strict";
for (const slider of document.querySelectorAll("input[data-for]")) {
  const block = document.getElementById(slider.dataset.for);
  const data = JSON.parse(document.getElementById(slider.dataset.for + "-data").textContent);
  const rows = [...block.querySelectorAll("tbody tr")];
  const show = () => {
    const step = Number(slider.value);
    const kept = new Set(data.kept[step].map(([edge, operation]) => edge + ":" + operation));
    const keptEdges = new Set(data.kept[step].map(([edge]) => edge));
    block.querySelector("output").textContent = data.epochs[step];
    slider.setAttribute("aria-valuetext", "epoch " + data.epochs[step]);
    rows.forEach((row, edge) => {
      row.querySelector("th").classList.toggle("kept", keptEdges.has(edge));
      row.querySelectorAll("td").forEach((cell, operation) => {
        const value = data.values[step][edge][operation];
        const level = value === null ? 0 : Math.min(Math.max(value / data.top, 0), 1);
        cell.textContent = value === null ? "\\u2013" : value.toFixed(2);
        cell.dataset.p = value === null ? "nan" : value.toFixed(4);
        cell.style.setProperty("--p", level.toFixed(3));
        cell.classList.toggle("strong", level > data.strong);
        cell.classList.toggle("kept", kept.has(edge + ":" + operation));
      });
    });
  };
  slider.hidden = false;
  slider.addEventListener("input", show);
  const last = slider.max;
  addEventListener("beforeprint", () => { slider.value = last; show(); });
  slider.value = last;
}
for (const slider of document.querySelectorAll("input[data-steps]")) {
  const steps = [...document.getElementById(slider.dataset.steps).querySelectorAll(".step")];
  const show = () => {
    steps.forEach((step, place) => { step.hidden = place !== Number(slider.value); });
    slider.setAttribute("aria-valuetext", steps[Number(slider.value)].querySelector("figcaption").textContent);
  };
  slider.hidden = false;
  slider.addEventListener("input", show);
  addEventListener("beforeprint", () => steps.forEach((step) => { step.hidden = false; }));
  addEventListener("afterprint", show);
  show();
}
for (const button of document.querySelectorAll("button.copy")) {
  const text = button.parentElement.querySelector("pre");
  button.hidden = false;
  button.addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents(text);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let copied = false;
    if (navigator.clipboard) {
      copied = await navigator.clipboard.writeText(text.textContent).then(() => true, () => false);
    }
    copied = copied || document.execCommand("copy");
    button.textContent = copied ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
}
"""
