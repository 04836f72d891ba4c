"""Records side by side: differences with verdicts (`compare`), the paper's claim (`claim`), the regression gate (`gate`)."""
