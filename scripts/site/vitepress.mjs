// How VitePress lays out the pages. Headings have GitHub's anchors, so that links are the same there and here.
import { readFileSync } from "node:fs";
import { slug } from "github-slugger";

const { name, version, sidebar } = JSON.parse(readFileSync(new URL("map.json", import.meta.url), "utf8"));

export default {
  title: name,
  description: "Virtio devices for virtual machines, in TypeScript",
  cleanUrls: false,
  markdown: {
    anchor: { slugify: slug },
  },
  themeConfig: {
    siteTitle: `${name} ${version}`,
    search: { provider: "local" },
    nav: [
      { text: "Start", link: "/start" },
      { text: "Write a device", link: "/writing-a-device" },
      { text: "Production", link: "/production" },
      { text: "Reference", link: "/reference/index.html", target: "_blank" },
    ],
    sidebar,
    outline: [2, 3],
  },
};
