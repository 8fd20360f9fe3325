"""`study report`: a run as one page of HTML that a browser opens by itself."""
