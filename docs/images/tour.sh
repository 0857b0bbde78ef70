#!/bin/sh
# Makes the images of docs/tour.md again, with its commands; run it in an empty folder:
#     sh REPOSITORY/docs/images/tour.sh
# Needs Chromium for the images of the two pages (CHROMIUM names another command).
set -eu
images=$(cd "$(dirname "$0")" && pwd)

python -c "
from lavis_dynrefer.synthetic import make_scene, render

render(make_scene(0, 2000002)).save('scene.jpg')
"
dynrefer predict scene.jpg --box 94,192,222,312 --box 84,83,154,147 --box 341,217,401,275
dynrefer predict scene.jpg --box 94,192,222,312 --box 84,83,154,147 --box 341,217,401,275 \
    --views fixed:0,0.5 --output answers --draw --explain
dynrefer inspect synthetic --root scenes --set scenes=60 --split train --output look

sed -i "s#$PWD/##g" look/inspect.html # names of files as seen from here

shot() { # page, image, height in pixels
    "${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --hide-scrollbars \
        --window-size="1100,$3" --screenshot="$PWD/shot.png" "file://$PWD/$1" 2>chromium.log
    python -c "
from PIL import Image

Image.open('shot.png').convert('RGB').save('$images/$2', quality=80, optimize=True)
"
}
shot answers/explain/scene.jpg.html tour_explain.jpg 1130
shot look/inspect.html tour_inspect.jpg 930
python -c "
from PIL import Image

Image.open('answers/annotated/scene.jpg.jpg').save('$images/tour_drawn.jpg', quality=85, optimize=True)
"
ls -l "$images"/tour_*.jpg
