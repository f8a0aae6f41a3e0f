"""Which checkpoint of a run to use: lambda, candidates, shortlist, one pick, and its noise."""

from densescope.selection.alarm import Alarm as Alarm
from densescope.selection.alarm import find_alarm as find_alarm
from densescope.selection.alarm import first_alarm as first_alarm
from densescope.selection.falls import AlarmSettings as AlarmSettings
from densescope.selection.peaks import local_maxima as local_maxima
from densescope.selection.peaks import pick_peak as pick_peak
from densescope.selection.peaks import shortlist as shortlist
from densescope.selection.race import Race as Race
from densescope.selection.race import undecided as undecided
from densescope.selection.result import Change as Change
from densescope.selection.result import Selection as Selection
from densescope.selection.result import SelectionRow as SelectionRow
from densescope.selection.run_table import RunTable as RunTable
from densescope.selection.schedule import ScheduleBreak as ScheduleBreak
from densescope.selection.schedule import schedule_breaks as schedule_breaks
from densescope.selection.schedule import stitched as stitched
from densescope.selection.select import select_checkpoints as select_checkpoints
from densescope.selection.table import write_table as write_table
from densescope.selection.teacher import GramTeacher as GramTeacher
from densescope.selection.teacher import select_gram_teacher as select_gram_teacher
