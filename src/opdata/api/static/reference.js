// Starts the API reference with everything off that would talk to another host.
Scalar.createApiReference("#reference", {
  url: "openapi.json",
  withDefaultFonts: false,
  telemetry: false,
  agent: { disabled: true },
  mcp: { disabled: true },
  showDeveloperTools: "never", // share, deploy, SDK generation
  hideClientButton: true, // "Open API Client" leads to the vendor's site
  persistAuth: false, // an API key is not for local storage
  documentDownloadType: "direct",
  orderSchemaPropertiesBy: "preserve",
});
