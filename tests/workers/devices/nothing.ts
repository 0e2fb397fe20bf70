export const device = "not the default export";
