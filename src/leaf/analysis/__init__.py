"""Analysis of finished cells: tables, figures, statistics and claims. Training does not import it."""
