"""medseg: segment organs and tumours in medical images."""
