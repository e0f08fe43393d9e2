"""What a cell is, and how it trains: everything between a configuration and the files that a cell leaves."""
