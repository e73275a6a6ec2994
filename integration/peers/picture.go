package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Measures of the picture.
const (
	pictureWidth  = vg.Length(760)
	panelHeight   = vg.Length(250)
	axisHeight    = vg.Length(13) // of the axis' name
	headHeight    = vg.Length(48)
	fontSlack     = 1.3 // by how much wider than Liberation Sans a reader's font may be
	dotRadius     = vg.Length(0.95)
	crossRadius   = vg.Length(2.6)
	maxDots       = 3400 // of a panel; dots in one place are drawn once
	before        = 600 * time.Millisecond
	after         = 700 * time.Millisecond
	sansSerifList = "'Liberation Sans',Arial,Helvetica,sans-serif" // of one metric
)

// ink returns a colour.
func ink(rgb uint32) color.Color {
	return color.NRGBA{R: uint8(rgb >> 16), G: uint8(rgb >> 8), B: uint8(rgb), A: 255}
}

// The colours of the picture.
const (
	inkText  = 0x24292f
	inkGrid  = 0xe4e8ec
	inkEvent = 0x6e7781
	inkOld   = 0x9fb3c8
	inkNew   = 0x1f7a8c
	inkFail  = 0xd1242f
)

var errNoPicture = errors.New("no picture: it needs a run of Baton's")

// draw draws the worst upgrade of Baton's, and below it that of a peer, as SVG.
func (s *result) draw(w io.Writer) error {
	rows := s.pictured()
	if len(rows) == 0 {
		return errNoPicture
	}
	var panels []*panel
	span, lowest, highest := time.Duration(0), math.Inf(1), 0.0
	for _, r := range rows {
		p := newPanel(r)
		panels = append(panels, p)
		span = max(span, max(p.event.First, p.event.Last)-p.event.Trigger+after)
	}
	for _, p := range panels {
		p.cut(span)
		for _, d := range p.records {
			lowest, highest = min(lowest, latency(&d)), max(highest, latency(&d))
		}
	}
	canvas := vgsvg.New(pictureWidth, headHeight+panelHeight*vg.Length(len(panels))+axisHeight)
	all := draw.New(canvas)
	all.FillPolygon(color.White, []vg.Point{all.Min, {X: all.Max.X, Y: all.Min.Y}, all.Max, {X: all.Min.X, Y: all.Max.Y}})
	head(all)
	for i, p := range panels {
		c, last := all, i == len(panels)-1
		c.Max.Y -= headHeight + panelHeight*vg.Length(i)
		c.Min.Y = c.Max.Y - panelHeight + 8
		if last {
			c.Min.Y -= axisHeight
		}
		c.Min.X, c.Max.X = c.Min.X+8, c.Max.X-14
		p.plot(span, lowest, highest, last).Draw(c)
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	// A page that shows the picture has no font of its own for it.
	_, err := w.Write(bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:"+sansSerifList+";")))
	return err
}

// pictured returns the row of Baton's and the one to put below it.
func (s *result) pictured() (rows []*row) {
	measured := slices.DeleteFunc(slices.Clone(s.Rows), func(r *row) bool { return r.Error != "" || len(r.events) == 0 })
	slices.SortStableFunc(measured, func(a, b *row) int { return cmp.Compare(a.RTT, b.RTT) })
	find := func(ok func(*row) bool) bool {
		i := slices.IndexFunc(measured, ok)
		if i >= 0 {
			rows = append(rows, measured[i])
		}
		return i >= 0
	}
	if !find(func(r *row) bool { return r.Peer == baton+"takeover" }) && !find(func(r *row) bool { return strings.HasPrefix(r.Peer, baton) }) {
		return nil
	}
	same := func(r *row) bool { return r.RTT == rows[0].RTT && !strings.HasPrefix(r.Peer, baton) }
	_ = find(func(r *row) bool { return same(r) && r.Peer == "tableflip" }) || find(same) // or none
	return rows
}

// A panel shows an upgrade.
type panel struct {
	*row
	event   event
	until   time.Duration // the next upgrade
	records []record
}

// newPanel takes the upgrade with the most failures, or the longest latency.
func newPanel(r *row) *panel {
	worst := func(e event) (failed int, took time.Duration) {
		for i := range r.records {
			if rec := &r.records[i]; isNear(rec.Due, []event{e}) {
				took = max(took, rec.Took)
				if rec.failed() {
					failed++
				}
			}
		}
		return failed, took
	}
	i := 0
	for j := range r.events {
		fi, ti := worst(r.events[i])
		if fj, tj := worst(r.events[j]); fj > fi || fj == fi && tj > ti {
			i = j
		}
	}
	p := &panel{row: r, event: r.events[i], until: math.MaxInt64}
	if i+1 < len(r.events) {
		p.until = r.events[i+1].Trigger
	}
	return p
}

// cut takes the requests that the picture has room for.
func (p *panel) cut(span time.Duration) {
	for _, rec := range p.row.records {
		if at := rec.Due - p.event.Trigger; -before <= at && at < span && rec.Due < p.until {
			p.records = append(p.records, rec)
		}
	}
}

// latency returns what is drawn, in milliseconds. The axis has no room for zero.
func latency(r *record) float64 { return max(milliseconds(r.Took), 0.01) }

func (p *panel) seconds(at time.Duration) float64 { return (at - p.event.Trigger).Seconds() }

// plot draws the panel; the last one has the axis.
func (p *panel) plot(span time.Duration, lowest, highest float64, last bool) *plot.Plot {
	plt := plot.New()
	plt.BackgroundColor = color.Transparent
	failed := 0
	for i := range p.records {
		if p.records[i].failed() {
			failed++
		}
	}
	where := ""
	if p.RTT > 0 {
		where = fmt.Sprintf(", %g ms round trip", p.RTT)
	}
	plt.Title.Text = fmt.Sprintf("%s%s: %d of %d requests failed", p.title(), where, failed, len(p.records))
	plt.Title.TextStyle = style(12, inkText, draw.XCenter, draw.YTop)
	plt.Title.TextStyle.Font.Weight = 2 // bold
	plt.Title.Padding = 20
	for _, a := range []*plot.Axis{&plt.X, &plt.Y} {
		a.Color, a.Tick.Color, a.Tick.Length = ink(inkEvent), ink(inkEvent), 4
		for _, s := range []*text.Style{&a.Label.TextStyle, &a.Tick.Label} {
			s.Color, s.Font.Variant, s.Font.Size = ink(inkText), "Sans", 9.5
		}
		a.Padding = 2
	}
	plt.X.Min, plt.X.Max = -before.Seconds(), span.Seconds()
	plt.X.Tick.Marker = steps(plt.X.Min, plt.X.Max)
	if last {
		plt.X.Label.Text = "seconds since the upgrade was triggered"
	}
	plt.Y.Min, plt.Y.Max = lowest*0.7, highest*1.5
	plt.Y.Scale = plot.LogScale{}
	plt.Y.Tick.Marker = powers(plt.Y.Min, plt.Y.Max)
	plt.Y.Label.Text = "latency, ms (log)"
	plt.Add(p)
	return plt
}

func (p *panel) title() string {
	if p.Peer == "tableflip" {
		return "http.Server.Shutdown on tableflip"
	}
	return p.What
}

func style(size vg.Length, rgb uint32, x text.XAlignment, y text.YAlignment) text.Style {
	f := plot.DefaultFont
	f.Variant = "Sans"
	f.Size = size
	return text.Style{Color: ink(rgb), Font: f, XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler}
}

// steps are the ticks of the time's axis.
func steps(from, to float64) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for i := math.Ceil(from * 2); i <= to*2; i++ {
		ticks = append(ticks, plot.Tick{Value: i / 2, Label: fmt.Sprintf("%g", i/2)})
	}
	return ticks
}

// powers are the ticks of the latency's axis.
func powers(from, to float64) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for v := math.Pow(10, math.Ceil(math.Log10(from))); v <= to; v *= 10 {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.4g", v)})
	}
	return ticks
}

// Plot draws grid, events and requests: the [plot.Plotter] of a panel.
func (p *panel) Plot(c draw.Canvas, plt *plot.Plot) {
	x, y := plt.Transforms(&c)
	grid := draw.LineStyle{Color: ink(inkGrid), Width: 0.6}
	for _, t := range plt.Y.Tick.Marker.Ticks(plt.Y.Min, plt.Y.Max) {
		c.StrokeLine2(grid, c.Min.X, y(t.Value), c.Max.X, y(t.Value))
	}
	p.moments(c, x)
	var old, fresh, failed vg.Path
	for _, rec := range p.spread(x, y) {
		at := vg.Point{X: x(p.seconds(rec.Due)), Y: y(latency(&rec))}
		switch {
		case rec.failed():
			cross(&failed, at)
		case rec.Version < p.event.Version:
			dot(&old, at)
		default:
			dot(&fresh, at)
		}
	}
	c.SetColor(ink(inkOld))
	c.Fill(old)
	c.SetColor(ink(inkNew))
	c.Fill(fresh)
	c.SetLineStyle(draw.LineStyle{Color: ink(inkFail), Width: 1.3})
	c.Stroke(failed)
}

// moments draws the events, whose names stand above the panel.
func (p *panel) moments(c draw.Canvas, x func(float64) vg.Length) {
	line := draw.LineStyle{Color: ink(inkEvent), Width: 0.7, Dashes: []vg.Length{3, 2}}
	e := p.event
	at := []vg.Length{x(0), x(p.seconds(e.First)), x(p.seconds(e.Last))}
	for _, v := range at {
		c.StrokeLine2(line, v, c.Min.Y, v, c.Max.Y)
	}
	c.FillText(style(8.5, inkEvent, draw.XRight, draw.YBottom), vg.Point{X: at[0] - 3, Y: c.Max.Y + 2}, "trigger")
	for row, m := range []struct {
		at   vg.Length
		text string
	}{
		{at[1], fmt.Sprintf("new version's first answer after %s ms", digits(milliseconds(e.First-e.Trigger)))},
		{at[2], fmt.Sprintf("old version's last answer after %s ms", digits(milliseconds(e.Last-e.Trigger)))},
	} {
		label := style(8.5, inkEvent, draw.XLeft, draw.YBottom)
		place := vg.Point{X: m.at + 3, Y: c.Max.Y + 2 + 11*vg.Length(row)}
		if m.at+fontSlack*label.Width(m.text) > c.Max.X { // there is room on one side
			label.XAlign, place.X = draw.XRight, m.at-3-(fontSlack-1)*label.Width(m.text)
		}
		c.StrokeLine2(line, m.at, c.Max.Y, m.at, place.Y+7)
		c.FillText(label, place, m.text)
	}
}

// spread leaves out requests that would be drawn upon others of their kind; never
// a failed one, nor the slowest of its time.
func (p *panel) spread(x, y func(float64) vg.Length) []record {
	type spot struct {
		x, y int
		kind int // of the dot
	}
	for cell := vg.Length(0.5); ; cell *= 1.25 {
		taken := make(map[spot]bool)
		slowest := make(map[int]int)
		for i := range p.records {
			column := int(x(p.seconds(p.records[i].Due)) / cell)
			if j, ok := slowest[column]; !ok || p.records[j].Took < p.records[i].Took {
				slowest[column] = i
			}
		}
		var kept []record
		for i := range p.records {
			rec := &p.records[i]
			column := int(x(p.seconds(rec.Due)) / cell)
			s := spot{x: column, y: int(y(latency(rec)) / cell)}
			if rec.Version >= p.event.Version {
				s.kind = 1
			}
			if rec.failed() || slowest[column] == i || !taken[s] {
				kept = append(kept, *rec)
				taken[s] = taken[s] || !rec.failed()
			}
		}
		if len(kept) <= maxDots || cell > 4 {
			return kept
		}
	}
}

func dot(path *vg.Path, at vg.Point) {
	path.Move(vg.Point{X: at.X + dotRadius, Y: at.Y})
	path.Arc(at, dotRadius, 0, 2*math.Pi)
}

func cross(path *vg.Path, at vg.Point) {
	const r = crossRadius
	for _, s := range []vg.Length{1, -1} {
		path.Move(vg.Point{X: at.X - r, Y: at.Y - s*r})
		path.Line(vg.Point{X: at.X + r, Y: at.Y + s*r})
	}
}

// head draws the legend.
func head(c draw.Canvas) {
	at := vg.Point{X: c.Min.X + 60, Y: c.Max.Y - 16}
	label := style(10, inkText, draw.XLeft, draw.YCenter)
	for _, item := range []struct {
		name string
		rgb  uint32
	}{{"answered by the old version", inkOld}, {"answered by the new version", inkNew}, {"failed", inkFail}} {
		var path vg.Path
		if item.rgb == inkFail {
			cross(&path, at)
			c.SetLineStyle(draw.LineStyle{Color: ink(item.rgb), Width: 1.3})
			c.Stroke(path)
		} else {
			path.Move(vg.Point{X: at.X + 2.5, Y: at.Y})
			path.Arc(at, 2.5, 0, 2*math.Pi)
			c.SetColor(ink(item.rgb))
			c.Fill(path)
		}
		c.FillText(label, vg.Point{X: at.X + 8, Y: at.Y}, item.name)
		at.X += 26 + fontSlack*label.Width(item.name)
	}
	c.FillText(style(9, inkEvent, draw.XLeft, draw.YCenter), vg.Point{X: c.Min.X + 57, Y: at.Y - 17}, "each dot is a request, none is sent twice; of dots in one place one is drawn")
}
