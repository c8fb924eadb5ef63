// Draws the panels of a dashboard with Grafana's own components, from the data of a Prometheus.
// The query of the page has the arguments: ?dashboard=overview&prometheus=URL&from=SECONDS&to=SECONDS
import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import 'uplot/dist/uPlot.min.css';
import './page.css';
import React, { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import {
  FieldType,
  applyFieldOverrides,
  createDataFrame,
  createTheme,
  dateTime,
  standardFieldConfigEditorRegistry,
  getDisplayProcessor,
} from '@grafana/data';
import {
  BigValue,
  GlobalStyles,
  PanelChrome,
  ThemeContext,
  TimeSeries,
} from '@grafana/ui';
import overview from '../dashboards/overview.json';
import sessions from '../dashboards/sessions.json';

standardFieldConfigEditorRegistry.setInit(() => []); // the dashboards override no field

const page = new URLSearchParams(window.location.search);
const dashboard = { overview, sessions }[page.get('dashboard')];
const from = Number(page.get('from'));
const to = Number(page.get('to'));
const theme = createTheme({ colors: { mode: 'dark' } });
const timeRange = {
  from: dateTime(from * 1000),
  to: dateTime(to * 1000),
  raw: { from: dateTime(from * 1000), to: dateTime(to * 1000) },
};

const WIDTH = 1400;
const COLUMN = WIDTH / 24;
const ROW = 30;
const GAP = 8;
const STEP_SECONDS = 2;
const VARIABLES = { $instance: '.*', $model: '.*', $__rate_interval: '15s' };
const DEFAULTS = { drawStyle: 'line', lineWidth: 1.5, lineInterpolation: 'linear', pointSize: 5 };

function filledIn(expr) {
  return Object.entries(VARIABLES).reduce((text, [name, value]) => text.replaceAll(name, value), expr);
}

function legend(format, labels) {
  return format.replace(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '');
}

async function frames(panel) {
  const answers = await Promise.all(
    panel.targets.map(async (target) => {
      const query = new URLSearchParams({ query: filledIn(target.expr), start: from, end: to, step: STEP_SECONDS });
      const response = await fetch(`${page.get('prometheus')}/api/v1/query_range?${query}`);
      const { data } = await response.json();
      return data.result.map((series) => frame(panel, target, series));
    })
  );
  const data = answers.flat();
  if (data.length === 0) {
    throw new Error(`no data: ${panel.title}`);
  }
  return applyFieldOverrides({
    data,
    fieldConfig: panel.fieldConfig,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
}

function frame(panel, target, series) {
  const defaults = panel.fieldConfig.defaults;
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: series.values.map(([time]) => time * 1000), config: {} },
      {
        name: 'Value',
        type: FieldType.number,
        values: series.values.map(([, value]) => (value === 'NaN' ? null : Number(value))),
        labels: series.metric,
        config: {
          ...defaults,
          displayNameFromDS: legend(target.legendFormat, series.metric),
          custom: { ...DEFAULTS, ...defaults.custom },
        },
      },
    ],
  });
}

function Lines({ data, width, height, panel }) {
  return (
    <TimeSeries
      frames={data}
      structureRev={1}
      timeRange={timeRange}
      timeZone="utc"
      width={width}
      height={height}
      legend={panel.options.legend}
      options={panel.options}
    />
  );
}

function BigNumber({ data, width, height, panel }) {
  const [time, value] = data[0].fields;
  const display = value.display ?? getDisplayProcessor({ field: value, theme });
  const last = value.values.filter((number) => number !== null).at(-1);
  return (
    <BigValue
      value={display(last)}
      width={width}
      height={height}
      theme={theme}
      colorMode={panel.options.colorMode}
      graphMode={panel.options.graphMode}
      sparkline={{ x: time, y: value, xRange: undefined }}
      textMode="value"
    />
  );
}

const DRAWN_BY = { timeseries: Lines, stat: BigNumber };

function placed({ x, y }) {
  return { position: 'absolute', left: x * COLUMN, top: y * ROW };
}

function Row({ panel }) {
  return (
    <h4 className="heading" style={placed(panel.gridPos)}>
      {panel.title}
    </h4>
  );
}

function Panel({ panel }) {
  const [data, setData] = useState(null);
  useEffect(() => {
    frames(panel).then(setData);
  }, [panel]);
  const { w, h } = panel.gridPos;
  const Drawn = DRAWN_BY[panel.type];
  return (
    <div style={placed(panel.gridPos)}>
      <PanelChrome title={panel.title} width={w * COLUMN - GAP} height={h * ROW - GAP}>
        {(width, height) => data && <Drawn data={data} width={width} height={height} panel={panel} />}
      </PanelChrome>
    </div>
  );
}

function Dashboard() {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      {dashboard.panels.map((panel) =>
        panel.type === 'row' ? <Row key={panel.id} panel={panel} /> : <Panel key={panel.id} panel={panel} />
      )}
    </ThemeContext.Provider>
  );
}

window.grafanaBootData = { user: {}, settings: {} };
createRoot(document.getElementById('root')).render(<Dashboard />);
