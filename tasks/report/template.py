"""The report page as a Jinja template with its style sheet: one file, no scripts, nothing to load, light and dark."""

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --card: #fff; --ink: #1d2126; --soft: #5d6670; --line: #b9bfc6; --rule: #e3e5e1;
  --scorer: #d00000; --good: #0a7a4b; --bad: #b3261e; --note: #fff6dc; --series-0: #0072b2; --series-1: #d99400; --series-2: #009e73;
  --series-3: #cc79a7; --series-4: #45a5dd; --series-5: #d55e00; --series-6: #8c6d1f; --series-7: #5c5c8a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1b1f24; --ink: #e8e8e4; --soft: #a0a8b0; --line: #59626c;
  --rule: #2c3238; --scorer: #ff6459; --good: #4fd39a; --bad: #ff8a80; --note: #3a3119; --series-0: #4598e6; --series-1: #f0b429;
  --series-2: #2cc295; --series-3: #e39ac0; --series-4: #8fd3ff; --series-5: #f5854a; --series-6: #cdaa52; --series-7: #a9a9de; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: clamp(1.35rem, 3.4vw, 2rem); line-height: 1.25; margin: .2rem 0 .6rem; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 3rem 0 .4rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
h1, h2, h3, p, li, dd, figcaption { overflow-wrap: anywhere; }
p { max-width: 46rem; text-wrap: pretty; margin: .4rem 0 .9rem; }
.soft, figcaption, .tile small { color: var(--soft); }
.over { letter-spacing: .06em; font-size: .8rem; color: var(--soft); }
nav { font-size: .9rem; margin: 1.2rem 0 0; }
nav a { margin-right: 1rem; display: inline-block; }
a { color: var(--series-0); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.4rem 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .7rem .9rem; min-width: 0; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tile small { display: block; line-height: 1.35; }
.note { background: var(--note); border-radius: 10px; padding: .7rem 1rem; margin: 1rem 0; }
.note ul { margin: .2rem 0; padding-left: 1.2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem; margin: 1rem 0; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem; min-width: 0; }
figure h3 { margin: 0 0 .4rem; }
figcaption { font-size: .85rem; margin-top: .4rem; }
svg { display: block; width: 100%; height: auto; margin: 0 auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.scroll { overflow-x: auto; margin: .8rem 0; background:
  linear-gradient(90deg, transparent calc(100% - 3rem), var(--paper) calc(100% - 1rem)) 100% 0 / 100% 100% no-repeat local,
  linear-gradient(90deg, transparent calc(100% - 1rem), var(--rule)) 100% 0 / 100% 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .34rem .8rem .34rem 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); border-bottom-color: var(--line); }
td.num, th.num { text-align: right; }
td.text { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
td small { color: var(--soft); }
tr.scorer td:first-child { color: var(--scorer); font-weight: 600; }
table.results small { display: inline-block; }
.best { font-weight: 700; } .good { color: var(--good); } .bad { color: var(--bad); }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr); gap: .25rem 1rem; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; }
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem; overflow-x: auto; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .6rem 0; }
@media (max-width: 480px) { body { padding: 1.2rem .9rem 3rem; } figure { padding: .5rem; }
  table.results small { display: block; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin-bottom: .5rem; } .tiles { grid-template-columns: 1fr 1fr; } }
@media print { figure, tr { break-inside: avoid; } nav { display: none; } }
"""

TEMPLATE = """
{% macro cost(seconds) %}{{ seconds | seconds if seconds is not none else "-" }}{% endmacro %}
{% macro missing(text) %}<p class="soft">Left out: {{ text }}.</p>{% endmacro %}
{% macro pictures(found) %}<div class="figures">
{% for picture in found %}<figure><h3>{{ picture.title }}</h3>{{ picture.svg }}
<figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}</div>{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }} · autosparse</title>
<link rel="icon" href="data:,">
<style>{{ style }}</style>
</head>
<body>
<header>
<div class="over">autosparse run <b>{{ name }}</b></div>
<h1>{{ headline }}</h1>
<p>{{ lead }}</p>
{% if notes %}<div class="note">{% if unfinished %}<b>This run is not finished.</b> {% endif %}Not on this page:
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul></div>{% endif %}
<div class="tiles">{% for tile in tiles %}<div class="tile"><small>{{ tile.what }}</small><b>{{ tile.value }}</b>
<small>{{ tile.more }}</small></div>{% endfor %}</div>
<nav>{% for key, title in sections %}<a href="#{{ key }}">{{ title }}</a>{% endfor %}</nav>
</header>

<h2 id="accuracy">Accuracy over density</h2>
{% if curves %}<p>Test accuracy after the last epoch, mean over seeds; bars are one standard deviation (n&nbsp;&minus;&nbsp;1).</p>
{{ pictures(curves) }}{% else %}{{ missing("no arm has been retrained yet") }}{% endif %}

<h2 id="results">Results</h2>
{% for table in results %}<h3>{{ table.title }}</h3>
<div class="scroll"><table class="results"><thead><tr><th>method</th>
{% for density in table.densities %}<th class="num">{{ "%g" | format(density) }}</th>{% endfor %}</tr></thead><tbody>
{% for line in table.lines %}<tr{% if line.method == "scorer" %} class="scorer"{% endif %}><td>{{ line.method }}</td>
{% for cell in line.cells %}<td class="num{{ " best" if cell.best }}">{% if cell.row %}
{% if cell.row.mean is not none %}{{ "%.4f" | format(cell.row.mean) }}
{% if cell.row.std is not none %} <small>± {{ "%.4f" | format(cell.row.std) }}</small>{% endif %}{% else %}-{% endif %}
 <small>n={{ cell.row.n }}</small>{% if cell.row.failed %}
 <small class="bad">{{ cell.row.failed }} failed</small>{% endif %}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if table.landed %}<div class="scroll"><table><thead><tr><th>without a density target</th><th class="num">density</th>
<th class="num">of all parameters</th><th class="num">accuracy</th></tr></thead><tbody>
{% for row in table.landed %}<tr><td>{{ row.method }}</td><td class="num">{{ row.kept_density | density }}</td>
<td class="num">{{ row.density_all | density }}</td><td class="num">{{ row.mean | accuracy }}
{% if row.std is not none %} <small>± {{ "%.4f" | format(row.std) }}</small>{% endif %}
 <small>n={{ row.n }}</small>{% if row.failed %} <small class="bad">{{ row.failed }} failed</small>{% endif %}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% else %}{{ missing("no arm has been retrained yet") }}{% endfor %}
{% if results %}<p class="soft">Mean ± standard deviation over n seeds, by density. Bold: the best of criteria, scorer and other methods;
dense and ticket are the two ends of the scale.</p>{% endif %}
{% if failed %}<h3>Failed arms</h3><div class="scroll"><table>
<thead><tr><th>target</th><th>method</th><th class="num">density</th><th class="num">seed</th><th>what happened</th></tr></thead><tbody>
{% for arm in failed %}<tr><td>{{ arm.target }}</td><td>{{ arm.method }}</td><td class="num">{{ arm.density | density }}</td>
<td class="num">{{ arm.seed }}</td><td class="text">{{ arm.what }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}

<h2 id="claims">Claims</h2>
{% if claims.lines %}<p>The learned scorers beside the best of the others, seed by seed: mean difference of accuracy ± its standard
error, n seeds in common, p of the paired t-test. Criteria that look ahead are rivals of the lookahead track only. Scoring holds the
probe of a method that looks ahead, and all overhead of its step.</p>
<div class="scroll"><table><thead><tr>{% for title in claims.head %}<th>{{ title }}</th>{% endfor %}</tr></thead><tbody>
{% for line in claims.lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% else %}{{ missing("no learned scorer has an arm yet") }}{% endif %}

<h2 id="gap">Gap closure</h2>
{% if gaps %}<p>(scorer &minus; best criterion) / (ticket &minus; best criterion): 0 % is the best fixed formula,
100 % the ticket of a whole IRP.</p>
<div class="scroll"><table><thead><tr>
{% if many %}<th>target</th>{% endif %}<th class="num">density</th><th>learned scorer</th><th>gap closure</th><th class="num">accuracy</th>
<th class="num">above the best</th><th>best criterion</th><th class="num">ticket</th></tr></thead><tbody>
{% for gap in gaps %}<tr>{% if many %}<td>{{ gap.target }} on {{ gap.dataset }}</td>{% endif %}
<td class="num">{{ "%g" | format(gap.density) }}</td><td>{{ gap.method }}</td>
<td>{% if gap.closure is not none %}<b>{{ "%.1f" | format(100 * gap.closure) }} %</b>{% else %}not defined
 <small>({{ gap.why }})</small>{% endif %}</td>
<td class="num">{{ gap.scorer | accuracy }}</td>
<td class="num">{{ gap.lead | points }} <small>{{ gap.over | tested }}</small></td>
<td>{{ gap.best | accuracy }} <small>{{ gap.best_name }}</small></td><td class="num">{{ gap.ticket | accuracy }}</td></tr>
{% endfor %}</tbody></table></div>{% else %}{{ missing("no arm at a density below 1 has been retrained yet") }}{% endif %}

<h2 id="controls">Controls</h2>
{% if controls %}<p>A control destroys one thing and keeps the rest: <i>shuffle</i> moves the kept weights about within each layer,
<i>reinit</i> draws their values anew, <i>rescale</i> gives them the size of their layer,
<i>invert</i> keeps the lowest scores. A fall of a point (0.01) or more counts, seed by seed;
± is its standard error, p that of the paired t-test.</p>
<div class="scroll"><table><thead><tr>
{% if many %}<th>target</th>{% endif %}<th>control</th><th class="num">density</th><th class="num">method &minus; control</th>
<th>verdict</th><th class="num">method</th><th class="num">control</th></tr></thead><tbody>
{% for one in controls %}<tr>
{% if many %}<td>{{ one.target }} on {{ one.dataset }}</td>{% endif %}<td>{{ one.method }}+{{ one.control }}</td>
<td class="num">{{ "%g" | format(one.density) }}</td>
<td class="num">{{ one.found.mean | points }} <small>{{ one.found | tested }}</small></td><td>{{ one.verdict }}</td>
<td class="num">{{ one.base | accuracy }}</td><td class="num">{{ one.accuracy | accuracy }}</td></tr>
{% endfor %}</tbody></table></div>{% else %}{{ missing("the run has no control (a method METHOD+CONTROL)") }}{% endif %}

<h2 id="layers">Where the weights stay</h2>
{% if layers %}<p>Density of each layer after the cut, logarithmic, mean over seeds. The dotted line is the density of the whole
network; a layer without a bar has no weight left.</p>{{ pictures(layers) }}{% else %}{{ missing(why.layers) }}{% endif %}

<h2 id="overlap">Overlap of masks</h2>
{% if overlaps %}<p>Share of the weights kept by the column's method that the row's method keeps too. Masks drawn at random from
the whole network would overlap by the density.</p>{{ pictures(overlaps) }}{% else %}{{ missing(why.overlap) }}{% endif %}

<h2 id="survival">What survives</h2>
{% if survival %}{{ pictures(survival) }}{% else %}{{ missing(why.survival) }}{% endif %}

<h2 id="drift">Drift</h2>
{% if drift %}<p>Features of each target beside those the scorer learned from. Distance: Kolmogorov-Smirnov, 0 = the same, 1 = nothing
in common; <i>new values</i> are fan-ins, depths and layer sizes that training did not have. A warning stops nothing.</p>
<div class="scroll"><table><thead><tr><th>target</th><th class="num">seed</th><th>method</th><th>beside</th><th></th>
<th>worst columns</th></tr></thead><tbody>
{% for row in drift %}<tr><td>{{ row.target }}</td><td class="num">{{ row.seed }}</td><td>{{ row.method }}</td><td>{{ row.source }}</td>
<td>{% if row.warning %}<span class="bad">warning</span>{% else %}<span class="good">alike</span>{% endif %}</td>
<td class="text">{% for one in row.worst %}{{ one.column }} {{ "%.2f" | format(one.distance) }}
{% if one.kind == "new values" %} <small>{{ one["values"] | length }}{{ "" if one["values"] | length < 3 else " or more" }} new,
{{ "%.0f" | format(100 * one.new) }} % of weights</small>
{% elif one.kind == "shifted" %} <small>shifted, at most {{ "%.2f" | format(one.threshold) }}</small>{% endif %}
{% if not loop.last %}, {% endif %}{% endfor %}</td></tr>
{% endfor %}</tbody></table></div>{% else %}{{ missing("no target was scored by a scorer that knows what it learned from") }}{% endif %}

{% if valleys %}<h2 id="valley">Valleys</h2>
<p>What lies between the minima of two networks, on training images, with BatchNorm statistics taken anew at every point.</p>
{% for one in valleys %}<h3>{{ one.title }}</h3>{{ pictures(one.pictures) }}
{% if one.rows %}<div class="scroll"><table><thead><tr><th></th><th class="num">{{ one.first }}</th>
<th class="num">{{ one.second }}</th></tr></thead><tbody>
{% for what, first, second in one.rows %}<tr><td>{{ what }}</td><td class="num">{{ first }}</td>
<td class="num">{{ second }}</td></tr>{% endfor %}</tbody></table></div>{% endif %}
{% for line in one.lines %}<p class="soft">{{ line }}</p>{% endfor %}{% endfor %}{% endif %}

<h2 id="ledger">Cost</h2>
<p>Wall seconds of the steps with all their overhead, as they were on the machines of this run; steps may have run side by side.</p>
<div class="scroll"><table><thead><tr><th>step</th><th class="num">seconds</th><th></th></tr></thead><tbody>
<tr><td>IRP, {{ ledger.rounds }} rounds of {{ ledger.sources }} {{ "source" if ledger.sources == 1 else "sources" }}</td>
<td class="num">{{ cost(ledger.irp) }}</td><td class="soft">{{ cost(ledger.irp_per_network) }} per network</td></tr>
<tr><td>feature extraction</td><td class="num">{{ cost(ledger.features) }}</td><td></td></tr>
<tr><td>scorer fit</td><td class="num">{{ cost(ledger.fit) }}</td><td></td></tr>
</tbody></table></div>
{% if ledger.methods %}<div class="scroll"><table><thead><tr><th>method</th><th class="num">scoring</th>
<th class="num">retraining per arm</th><th class="num">scoring / retraining</th></tr></thead><tbody>
{% for one in ledger.methods %}<tr{% if one.name == "scorer" %} class="scorer"{% endif %}><td>{{ one.name }}</td>
<td class="num">{{ cost(one.scoring) }}{% if one.scoring_n %} <small>n={{ one.scoring_n }}</small>{% endif %}</td>
<td class="num">{{ cost(one.retraining) }}{% if one.retraining_n %} <small>n={{ one.retraining_n }}</small>{% endif %}</td>
<td class="num">{% if one.share is not none %}{{ "%.1f" | format(100 * one.share) }} %{% else %}-{% endif %}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if arm_costs %}<h3>Networks and trainings</h3>
<p>Means over seeds of the network that was tested. Multiply-adds count weights that are exactly zero as free: an ideal, PyTorch
computes them. Training is the sum of its steps; memory is the process on a CPU, the tensors on a GPU.</p>
{% for table in arm_costs %}{% if many %}<h3>{{ table.title }}</h3>{% endif %}
<div class="scroll"><table><thead><tr><th>method</th><th class="num">density asked</th><th class="num">kept</th>
<th class="num">of all parameters</th><th class="num">inference, per image</th><th class="num">training</th>
<th class="num">training</th><th class="num">inference</th><th class="num">peak memory</th></tr></thead><tbody>
{% for row in table.lines %}<tr{% if row.method == "scorer" %} class="scorer"{% endif %}><td>{{ row.method }}</td>
<td class="num">{{ row.density | density }}</td><td class="num">{{ row.kept_density | density }}</td>
<td class="num">{{ row.density_all | density }}</td><td class="num">{{ row.inference_macs | count }}</td>
<td class="num">{{ row.training_macs | count }}</td><td class="num">{{ cost(row.training_seconds) }}</td>
<td class="num">{{ row.images_per_second | count }} <small>images/s</small></td>
<td class="num">{{ row.peak_memory_bytes | mebibytes }}</td></tr>
{% endfor %}</tbody></table></div>{% endfor %}{% endif %}
{% if cards %}<h3>Methods</h3><dl>{% for one in cards %}<dt>{{ one.method }}</dt><dd>{{ one.card }}</dd>{% endfor %}</dl>{% endif %}
<h3>Break-even</h3><p>{{ break_even }}</p>
<h3>Multiply-adds</h3>
{% if macs %}<p>Convolutions and linear layers, counted from their shapes; a backward pass counts twice. Masked weights are taken to
cost nothing: an ideal, for PyTorch trains masked networks at the dense cost.</p>
{% for table in macs %}<h3>{{ table.title }}</h3>
<p>Dense: {{ "%.3g" | format(table.dense.forward) }} per image, {{ "%.3g" | format(table.dense.training) }} for one retraining.
Below: the share of it that is left, and one retraining.</p>
<div class="scroll"><table class="results"><thead><tr><th>method</th>
{% for density in table.densities %}<th class="num">{{ "%g" | format(density) }}</th>{% endfor %}</tr></thead><tbody>
{% for line in table.lines %}<tr{% if line.method == "scorer" %} class="scorer"{% endif %}><td>{{ line.method }}</td>
{% for cell in line.cells %}<td class="num">{% if cell %}{{ "%.1f" | format(100 * cell.share) }} %
 <small>{{ "%.2g" | format(cell.training) }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endfor %}{% endif %}{% if why.macs %}{{ missing(why.macs) }}{% endif %}

<h2 id="provenance">Provenance</h2>
<dl>{% for key, value in facts %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% if command %}<p>The run again, on another machine too:</p><pre class="wrap">{{ command }}</pre>{% endif %}
<details><summary>The whole spec as JSON</summary><pre>{{ spec }}</pre></details>
</body>
</html>
"""
