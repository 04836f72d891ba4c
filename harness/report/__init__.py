"""What people read: the table of results, the sheet of images, the plots. Nothing is measured here."""
