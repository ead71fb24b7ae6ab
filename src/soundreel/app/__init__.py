"""The web page: `soundreel app`."""
