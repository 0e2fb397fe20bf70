/**
 * Plots as SVG, by Apache ECharts, which draws without a browser. Loaded only where a plot is asked for.
 */

import type { BarSeriesOption, LineSeriesOption, ScatterSeriesOption } from "echarts/charts";
import type { Findings, Row } from "./bench.ts";

const COLUMNS = 2;
const WIDTH = 520;
const HEIGHT = 320;
/** Room around a panel's axes: left, right, top, bottom. */
const [LEFT, RIGHT, TOP, BOTTOM] = [80, 20, 50, 50];
/** A line of the legend above all. */
const LEGEND = 26;
const LEGEND_COLUMNS = 3;

/** Ours stand out; the peers are paler and dashed. */
const OURS = ["#c0392b", "#e67e22", "#8e44ad", "#d81b60", "#6d4c41"];
const PEERS = ["#2471a3", "#17a589", "#7f8c8d", "#5dade2", "#2c3e50", "#58d68d"];

type Series = BarSeriesOption | LineSeriesOption | ScatterSeriesOption;

interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly rows: readonly Row[];
}

/** A panel for each combination of unit and all axes but the one that goes to the right. */
function panels({ rows, across }: Findings): Panel[] {
  const found = new Map<string, { title: string; unit: string; rows: Row[] }>();
  for (const row of rows) {
    const others = Object.entries(row.point).filter(([axis]) => axis !== across);
    const title = others.map(([axis, value]) => typeof value === "number" ? `${axis} ${value}` : value).join(
      ", ",
    );
    const key = `${title}, ${row.unit}`;
    const panel = found.get(key) ?? { title, unit: row.unit, rows: [] };
    panel.rows.push(row);
    found.set(key, panel);
  }
  return [...found.values()];
}

/** The text of an SVG file: medians as lines (bars, where the axis has no numbers), every round as a dot. */
export async function plot(findings: Findings): Promise<string> {
  const { init, use } = await import("echarts/core");
  const { BarChart, LineChart, ScatterChart } = await import("echarts/charts");
  const { GridComponent, LegendComponent, TitleComponent } = await import("echarts/components");
  const { SVGRenderer } = await import("echarts/renderers");
  use([BarChart, LineChart, ScatterChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);

  const { across, subjects } = findings;
  const all = panels(findings);
  const measured = subjects.filter(({ name }) => findings.rows.some(({ figures }) => name in figures));
  const columns = Math.min(COLUMNS, all.length);
  const head = 40 + LEGEND * Math.ceil(measured.length / (LEGEND_COLUMNS * Math.max(1, columns)));
  const width = Math.max(1, columns) * WIDTH;
  const height = head + Math.ceil(all.length / COLUMNS) * HEIGHT;
  const place = (i: number): { left: number; top: number } => ({
    left: i % COLUMNS * WIDTH + LEFT,
    top: head + Math.floor(i / COLUMNS) * HEIGHT + TOP,
  });
  const style = (name: string): { color: string; dashed: boolean } => {
    const peer = subjects.find((subject) => subject.name === name)?.peer === true;
    const colors = peer ? PEERS : OURS;
    const at = subjects.filter((subject) => subject.peer === peer).findIndex((subject) =>
      subject.name === name
    );
    return { color: colors[at % colors.length], dashed: peer };
  };

  const chart = init(null, null, { renderer: "svg", ssr: true, width, height });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: "#ffffff",
      title: [
        { text: findings.title, left: "center", top: 8, textStyle: { fontSize: 13 } },
        ...all.map(({ title, unit }, i) => ({
          ...place(i),
          top: place(i).top - 45,
          text: title,
          subtext: unit,
          itemGap: 2,
          textStyle: { fontSize: 12 },
        })),
      ],
      legend: {
        top: 32,
        width: width - 2 * RIGHT,
        itemGap: 24,
        textStyle: { fontSize: 11 },
        data: measured.map(({ name }) => name),
      },
      grid: all.map((_, i) => ({
        ...place(i),
        width: WIDTH - LEFT - RIGHT,
        height: HEIGHT - TOP - BOTTOM,
      })),
      xAxis: all.map(({ rows }, gridIndex) => ({
        gridIndex,
        type: "category",
        name: across,
        nameLocation: "middle",
        nameGap: 40,
        axisLabel: { interval: 0, width: (WIDTH - LEFT - RIGHT) / rows.length, overflow: "break" },
        data: rows.map(({ point }) => String(point[across])),
      })),
      yAxis: all.map((_, gridIndex) => ({ gridIndex, type: "value", min: 0 })),
      series: all.flatMap(({ rows }, i) =>
        measured.flatMap(({ name }): Series[] => {
          const { color, dashed } = style(name);
          const numeric = rows.every(({ point }) => typeof point[across] === "number");
          const common = { name, xAxisIndex: i, yAxisIndex: i, itemStyle: { color } };
          const medians = rows.map(({ figures }) => figures[name]?.median ?? null);
          if (medians.every((median) => median === null)) return [];
          if (!numeric) return [{ ...common, type: "bar", data: medians }];
          const dots = rows.flatMap(({ figures }, x) =>
            figures[name]?.rounds.map((figure) => [x, figure]) ?? []
          );
          return [
            {
              ...common,
              type: "line",
              data: medians,
              symbolSize: 7,
              lineStyle: { color, width: 2, type: dashed ? "dashed" : "solid" },
            },
            {
              ...common,
              type: "scatter",
              data: dots,
              symbolSize: 3,
              itemStyle: { color, opacity: 0.5 },
            },
          ];
        })
      ),
    });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}
