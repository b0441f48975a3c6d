"""Forecasters of many related series: one file per method, reading like its card."""
