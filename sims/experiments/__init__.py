"""The founding paper's experiments at the size of one machine; each ends with what is claimed beside what is found."""
