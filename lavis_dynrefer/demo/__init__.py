"""A web page over `RegionPredictor`; needs the extra `demo`.

Only `web_app` and `page_guard` need the libraries of the extra. Input of visitors is checked and
limited as by the HTTP service.
"""
