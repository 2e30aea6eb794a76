"""OpenTelemetry for every run. Library code uses the API only; the SDK is the host's business."""
