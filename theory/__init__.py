"""The mathematics of the loss threshold: bounds as functions, claims that can be checked, a judge for any losses."""
