"""From readings to tables, plots and pages."""
