"""Laws of the library and of the study, in folders that mirror their packages; what several tests share is in kit."""
