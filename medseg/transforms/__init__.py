"""Lists of MONAI transforms and the load transform."""
