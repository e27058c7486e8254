import { Menu, Modal, Popover, createTheme, type CSSVariablesResolver, type MantineColorsTuple } from "@mantine/core";

const iris: MantineColorsTuple = [
  "#f3f3ff",
  "#e6e6fe",
  "#cbcaf9",
  "#abaaf2",
  "#908fea",
  "#7471de",
  "#625fd3",
  "#5753c6",
  "#4a47ac",
  "#3e3b90",
];

/** From text to the deepest ground. Menus, dialogs and fields take their colours from here in the dark. */
const dark: MantineColorsTuple = [
  "#eceef2",
  "#bcc2cd",
  "#949cab",
  "#767e8d",
  "#363a43",
  "#25282f",
  "#191b20",
  "#0e0f12",
  "#0b0c0e",
  "#08090a",
];

export const theme = createTheme({
  primaryColor: "iris",
  primaryShade: 7,
  colors: { iris, dark },
  fontFamily: '"Inter Variable", Inter, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", "Cascadia Code", "JetBrains Mono", Menlo, Consolas, monospace',
  defaultRadius: "md",
  cursorType: "pointer",
  focusRing: "auto",
  respectReducedMotion: true,
  fontSizes: { xs: "0.75rem", sm: "0.8125rem", md: "0.875rem", lg: "1rem", xl: "1.125rem" },
  headings: { fontWeight: "620" },
  components: {
    // What drops down is put into the main landmark, where assistive technology expects a page's content to be.
    Menu: Menu.extend({
      defaultProps: { withInitialFocusPlaceholder: false, portalProps: { target: "#main" } },
    }),
    Popover: Popover.extend({ defaultProps: { portalProps: { target: "#main" } } }),
    Modal: Modal.extend({
      defaultProps: { radius: "lg", overlayProps: { backgroundOpacity: 0.5 }, portalProps: { target: "#main" } },
      styles: {
        content: { background: "var(--surface)" },
        header: { background: "var(--surface)" },
        title: { fontWeight: 640, fontSize: "1.0625rem" },
      },
    }),
  },
});

/** Mantine's own greys are too pale for small text: these pass WCAG AA on every surface we use. */
export const cssVariablesResolver: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-body": "var(--bg)",
    "--mantine-color-text": "var(--text)",
    "--mantine-color-dimmed": "var(--text-3)",
    "--mantine-color-placeholder": "var(--text-3)",
    "--mantine-color-anchor": "var(--accent-text)",
    "--mantine-color-default": "var(--surface)",
    "--mantine-color-default-hover": "var(--hover)",
    "--mantine-color-default-color": "var(--text)",
    "--mantine-color-default-border": "var(--border-strong)",
    "--mantine-color-error": "var(--danger)",
  },
  dark: {
    "--mantine-color-body": "var(--bg)",
    "--mantine-color-text": "var(--text)",
    "--mantine-color-dimmed": "var(--text-3)",
    "--mantine-color-placeholder": "var(--text-3)",
    "--mantine-color-anchor": "var(--accent-text)",
    "--mantine-color-default": "var(--surface)",
    "--mantine-color-default-hover": "var(--hover)",
    "--mantine-color-default-color": "var(--text)",
    "--mantine-color-default-border": "var(--border-strong)",
    "--mantine-color-error": "var(--danger)",
  },
});
