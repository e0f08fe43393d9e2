"""What is made of the files that cells leave: tables, figures, statistics, claims. Training imports none of it."""
